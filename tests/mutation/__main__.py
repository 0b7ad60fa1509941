"""Try the mutants of the modules that are named, or of all: ``python -m tests.mutation gate``."""

from __future__ import annotations

import subprocess
import sys

from tests.support.processes import ROOT

# Which tests each module is held to: the quick ones that are about it, on SQLite.
LEASE_TESTS = [
    f"integration/test_{name}"
    for name in (
        *("leases", "lease_machine", "handovers", "agents", "hiding", "driving"),
        *("housekeeping", "control_commands", "access"),
    )
]
TESTS = {
    "gate": ["unit/test_gate"],
    "rfb.messages": ["unit/test_rfb_messages"],
    "leases": LEASE_TESTS,
    "leasestate": LEASE_TESTS,
}
# It goes the ways that the one beside it goes by hand, and takes as long as all others together.
LONG = (
    "integration/test_lease_machine.py::test_the_lease_behaves_as_its_model_whatever_is_called_when"
)


def main(names: list[str]) -> int:
    """Return 1 if a mutant survives that docs/mutation.md does not name."""
    return max([_try(name) for name in names or TESTS])


def _try(name: str) -> int:
    options = "-q -s --tb=native --database sqlite -p no:randomly -p tests.mutation.plugin"
    command = [
        *("nice", sys.executable, "-m", "pytest", *options.split(), "--deselect", f"tests/{LONG}"),
        *("--mutate", f"controlplane.{name}", "--results", f"var/mutation/{name}"),
        *(f"tests/{each}.py" for each in TESTS[name]),
    ]
    return int(subprocess.run(command, cwd=ROOT, check=False).returncode != 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
