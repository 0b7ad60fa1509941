"""``python -m bench``: measure, write docs/benchmarks.md, fail where a bar is missed."""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

from bench import bars, report
from bench.agents import agents
from bench.authority import authority
from bench.bars import BARS, Results, Verdict
from bench.browser import browser
from bench.busy import busy
from bench.contenders import Site
from bench.control import control
from bench.measures import relay, sessions, stall
from bench.rounds import QUICK, Round, Sizes
from bench.scaling import scaling
from bench.screenshots import screenshots
from bench.surroundings import machine, versions
from tests.support.processes import ROOT, MissingProgram

PARTS: dict[str, Callable[[Round], None]] = {
    "relay": relay,
    "busy": busy,
    "scaling": scaling,
    "sessions": sessions,
    "stall": stall,
    "control": control,
    "authority": authority,
    "agents": agents,
    "screenshots": screenshots,
    "browser": browser,
}
OPEN_FILES = 4096  # two for each session in the server, and one here

_began = time.monotonic()


def main() -> int:
    """Run all rounds; return the exit code."""
    options = parse()
    sizes = QUICK if options.quick else Sizes()
    sizes = replace(sizes, rounds=options.rounds or sizes.rounds)
    raise_file_limit()
    gc.disable()  # no pauses of ours in what is measured
    try:
        done = run(sizes, options.only or list(PARTS))
    except MissingProgram as error:
        print(error, file=sys.stderr)
        return 2
    is_partial = options.quick or options.only
    path = report.write(done, ROOT / ("var/bench" if is_partial else "docs"))
    say(f"written: {path.relative_to(ROOT)}")
    return tell(done.results)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything work?")
    parser.add_argument("--rounds", type=int, help="how many rounds")
    parser.add_argument("--only", choices=PARTS, nargs="+", help="these parts")
    return parser.parse_args(arguments)


def run(sizes: Sizes, parts: Sequence[str]) -> report.Run:
    """Measure these parts in turn, round after round."""
    results = Results()
    say("starting PostgreSQL, the fake VNC server and all bridges")
    with Site() as site, ExitStack() as stack:
        standing = {name: stack.enter_context(site.running(name)) for name in bars.CONTENDERS}
        for number in range(sizes.rounds):
            for part in parts:
                say(f"round {number + 1} of {sizes.rounds}: {part}")
                PARTS[part](Round(number, site, sizes, results, standing))
                gc.collect()
        today = datetime.now(UTC).date()
        return report.Run(results, sizes, machine(), versions(site), today)


def tell(results: Results) -> int:
    """Print how each bar stands; return 1 where one is missed."""
    verdicts = {bar: bar.judge(results) for bar in BARS}
    for bar, verdict in verdicts.items():
        median, interval = report.judged(bar, results)
        print(f"{verdict:>12}: {bar.contender}: {bar.title}: {median} ({interval})")
    return int(Verdict.MISSED in verdicts.values())


def raise_file_limit() -> None:
    """Allow as many open files as the sessions need, here and in what is started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(OPEN_FILES, hard)), hard))


def say(what: str) -> None:
    """Tell what is going on."""
    print(f"bench: {time.monotonic() - _began:4.0f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
