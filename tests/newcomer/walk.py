"""Walks the path of docs/deploy.md. Runs on the newcomer's machine, as its first process.

What the path takes for granted is made first: a name that leads here, a repository to clone. Then
one shell does all that the document says, at a terminal, where its questions are answered. With
``--from-nothing``, the upgrade is walked, too. Otherwise nothing is downloaded: packages have to be
there, and so has what `make install` would install, which is lent by our own tree.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from tests.newcomer import path
from tests.newcomer.browser import STEPS
from tests.newcomer.path import NAME, PASSWORD
from tests.support.processes import ROOT

REPOSITORY = Path("/srv/desktopctl.git")
ANSWERS = {"Email address: ": "", "Password: ": PASSWORD, "Password (again): ": PASSWORD}

_PROLOGUE = f"""
set -euo pipefail
tree={ROOT}
step() {{ printf '\\n### %s (%s s)\\n' "$1" "$SECONDS"; }}
browser() {{
    (cd "$tree" && SSL_CERT_FILE=/etc/desktopctl/tls/cert.pem \\
        .venv/bin/python -m tests.newcomer.browser "$1")
}}
lend() {{
    mkdir -p .venv node_modules /run/lent/written /run/lent/work
    mount -t overlay lent .venv \\
        -o "lowerdir=$tree/.venv,upperdir=/run/lent/written,workdir=/run/lent/work"
    mount -o bind,ro "$tree/node_modules" node_modules
}}
"""
_TOOLS = {
    "systemctl": f"""cd {ROOT}; exec .venv/bin/python -m tests.newcomer.systemctl "$@" """,
    # Says which package is missing, where the real one would fetch it.
    "apt-get": """
        [ "$1" = install ] || exit 0
        shift
        for word; do
            case $word in --*) continue ;; esac
            dpkg-query -W "$word" >/dev/null || exit 1
        done
    """,
}


def main() -> int:
    """Walk; return the exit code of the shell."""
    from_nothing = sys.argv[1:] == ["--from-nothing"]
    prepare(from_nothing=from_nothing)
    yours = {"repository": str(REPOSITORY), "name": NAME}
    before = {} if from_nothing else {"make install": "lend"}
    text = path.script(path.sections(upgrade=from_nothing), yours, before, list(STEPS))
    script = Path("/tmp/path.sh")
    script.write_text(_PROLOGUE + text + "\nstep 'The end'\n")
    return at_a_terminal(["bash", str(script)])


def prepare(*, from_nothing: bool) -> None:
    """Make what the path takes for granted."""
    with Path("/etc/hosts").open("a") as hosts:
        hosts.write(f"127.0.0.1 {NAME}\n")
    for name, text in _TOOLS.items():
        if name == "systemctl" or not from_nothing:
            tool = Path("/usr/local/sbin") / name
            tool.write_text(f"#!/bin/sh\n{text}\n")
            tool.chmod(0o755)
    # Our Python may lie in a home directory; others have to get there.
    for directory in Path(sys.executable).resolve().parents:
        if directory != directory.parent:
            directory.chmod(directory.stat().st_mode | 0o111)
    # Debian's package has made a cluster when it was installed.
    [version] = (each.name for each in Path("/usr/lib/postgresql").iterdir())
    subprocess.run(["pg_createcluster", version, "main"], check=True)
    commit(REPOSITORY)


def commit(repository: Path) -> None:
    """Make a repository with what is, or would be, in ours."""
    git = ["git", f"--git-dir={repository}"]
    subprocess.run([*git, "init", "--quiet", "--bare"], check=True)
    tree = [*git, f"--work-tree={ROOT}"]
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run([*tree, "add", "--all", "."], cwd=ROOT, check=True)
    subprocess.run([*tree, *who, "commit", "--quiet", "--message=All"], cwd=ROOT, check=True)


def at_a_terminal(argv: list[str]) -> int:
    """Run a program, answer what it asks, and print what it says."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(argv[0], argv)  # noqa: S606  (a shell is what is wanted)
    said = ""
    while chunk := _read(terminal):
        text = chunk.decode(errors="replace")
        sys.stdout.write(text)
        sys.stdout.flush()
        said = (said + text)[-100:]
        line = re.split(r"[\r\n]", said)[-1]
        if line in ANSWERS:
            os.write(terminal, f"{ANSWERS[line]}\n".encode())
            said = ""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the last program at the terminal has ended
        return b""


if __name__ == "__main__":
    sys.exit(main())
