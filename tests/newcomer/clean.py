"""Does what README.md says under "Try it" on a machine with nothing on it: ``make clean-machine``.

Its files are Debian's smallest set of packages, made by debootstrap from where this machine has its
own, and what the README takes for granted. It has the network of this machine, whose port 8000 has
to be free. Nothing of it stays but the two logs.

Arguments are those of pytest, in the place of all tests.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.newcomer import machine, walk
from tests.newcomer.browser import pressed
from tests.support.processes import ROOT, Process, program
from tests.support.stream_client import ApiClient, StreamClient
from tests.support.timing import wait_until

LOGS = ROOT / "var" / "log"
INSTALL_SECONDS, TEST_SECONDS = 240, 1200
BEFOREHAND = ("ca-certificates", "git", "make", "python3")  # and Node, which is copied

# How apt, pip and npm are set up here: where they find what they install is not ours to say.
_LENT = ("etc/apt", "usr/share/keyrings", "usr/local/share/ca-certificates", "etc/hosts")
_LENT += ("etc/resolv.conf", "etc/pip.conf", "etc/xdg/pip", "root/.config/pip", "root/.npmrc")

_REPOSITORY = Path("srv/desktopctl.git")
_TYPED = Path("srv/typed")


def main(arguments: list[str]) -> None:
    """Make the machine, and do on it what stands there."""
    if reason := machine.why_not():
        sys.exit(f"this machine gives none: {reason}")
    run, test = commands()
    with tempfile.TemporaryDirectory(prefix="desktopctl-clean-") as place:
        files = Path(place)
        make(files)
        step(files, f"git clone --quiet /{_REPOSITORY} desktopctl; cd desktopctl; {run}", demo)
        options = f" ARGS={shlex.quote(shlex.join(arguments))}" if arguments else ""
        step(files, f"cd desktopctl; {test}{options}", to_its_end)


def commands() -> list[str]:
    """Return the lines of the README's first block, without comments."""
    text = (ROOT / "README.md").read_text().partition("\n## Try it\n")[2]
    block = text.partition("```sh\n")[2].partition("```")[0]
    return [line.partition("#")[0].strip() for line in block.splitlines()]


def step(files: Path, command: str, judge: Callable[[Path, Process], None]) -> None:
    """Run a command on the machine, and what it does past the judge."""
    log = LOGS / f"clean-{'run' if judge is demo else 'test'}.log"
    log.unlink(missing_ok=True)
    say(f"{command}   (what it says: {log.relative_to(ROOT)})")
    argv = ["bash", "-c", f"set -e; cd /root; {command}"]
    with machine.running(argv, log, online=True, files=files) as process:
        judge(files, process)


# --- The machine ----------------------------------------------------------------------------------
def make(files: Path) -> None:
    """Make its files: a Debian like this one, of which nothing has been used."""
    say("a Debian with nothing on it …")
    release = _said("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME")
    wanted = ("--format=$(REPO_URI)", "Created-By: Packages", f"Codename: {release}")
    mirror = _said("apt-get", "indextargets", *wanted).splitlines()[0]
    debootstrap = program("debootstrap", "debootstrap")
    packages = f"--include={','.join(BEFOREHAND)}"
    _said(debootstrap, "--variant=minbase", packages, release, str(files), mirror)
    (files / "etc/apt/sources.list").unlink()
    for each in _LENT:
        _copy(Path("/", each), files / each)
    _said("chroot", str(files), "update-ca-certificates")
    lend_node(files / "usr/local")
    walk.commit(files / _REPOSITORY)


def lend_node(prefix: Path) -> None:
    """Install our Node and its npm: no package of Debian's is new enough."""
    _copy(Path(program("node", "nodejs")).resolve(), prefix / "bin/node")
    npm = Path(program("npm", "npm")).resolve()
    _copy(npm.parents[1], prefix / "lib/node_modules/npm")
    (prefix / "bin/npm").symlink_to("../lib/node_modules/npm/bin/npm-cli.js")
    (prefix / "bin/npx").symlink_to("../lib/node_modules/npm/bin/npx-cli.js")
    _copy(Path(_said("npm", "config", "get", "globalconfig")), prefix / "etc/npmrc")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    elif source.exists():
        shutil.copy(source, target)


def _said(*argv: str) -> str:
    """Run a program to its end; return what it says."""
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


# --- What the README promises ---------------------------------------------------------------------
def demo(files: Path, process: Process) -> None:
    """It prints the logins and an address, where the operator takes control and types."""
    ready = r"^Ready: (http://localhost:8000)/$"
    wait_until(
        lambda: re.search(ready, process.log(), re.MULTILINE) or not process.is_running,
        process.log,
        INSTALL_SECONDS,
    )
    [url] = re.findall(ready, process.log(), re.MULTILINE)
    logins = dict(re.findall(r"^ +(\w+) +password: (\S+)$", process.log(), re.MULTILINE))
    assert list(logins) == ["operator", "observer", "admin"]
    with closing(ApiClient.by_form(url, "operator", logins["operator"])) as operator:
        taken = operator.acquire("desk-1")
        driving = StreamClient(taken["session_url"], origin=url).shake_hands().in_control()
        driving.send(*pressed(f"echo mine > /{_TYPED}\n"))
        wait_until((files / _TYPED).exists, "it is typed")
        StreamClient.close_all()
    say("the operator has taken control, and typed")


def to_its_end(_files: Path, process: Process) -> None:
    """It passes."""
    assert process.wait(TEST_SECONDS) == 0, process.log()
    say(process.log().splitlines()[-1])


def say(text: str) -> None:
    """Tell who waits."""
    sys.stdout.write(f"clean machine: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
