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
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.newcomer import machine, walk
from tests.newcomer.browser import pressed
from tests.support.processes import ROOT, Process, program
from tests.support.stream_client import ApiClient, StreamClient
from tests.support.timing import wait_until

LOGS = ROOT / "var" / "log"
INSTALL_SECONDS, TEST_SECONDS = 600, 3600  # to find what hangs; a quiet machine needs a third
BEFOREHAND = ("ca-certificates", "git", "make", "python3")  # and Node, which is copied

# How apt, pip and npm are set up here: where they find what they install is not ours to say.
_LENT = ("etc/apt", "usr/share/keyrings", "usr/local/share/ca-certificates", "etc/hosts")
_LENT += ("etc/resolv.conf", "etc/pip.conf", "etc/xdg/pip", "root/.config/pip", "root/.npmrc")

_REPOSITORY = Path("srv/readme.git")  # beside that of walk.py, whose test is run there, too
_TYPED = Path("srv/typed")


def main(arguments: list[str]) -> None:
    """Make the machine, and do on it what stands there."""
    if reason := machine.why_not():
        sys.exit(f"this machine gives none: {reason}")
    run, test = commands()
    with tempfile.TemporaryDirectory(prefix="desktopctl-clean-") as place:
        files = Path(place)
        make(files)
        clone = f"git clone --quiet /{_REPOSITORY} desktopctl"
        with doing(f"{clone}; cd desktopctl; {run}", files, LOGS / "clean-run.log") as server:
            try_the_demo(server, files)
        options = f" ARGS={shlex.quote(shlex.join(arguments))}" if arguments else ""
        with doing(f"cd desktopctl; {test}{options}", files, LOGS / "clean-test.log") as tests:
            assert tests.wait(TEST_SECONDS) == 0, tests.log()
        say(tests.log().splitlines()[-1])


def commands() -> list[str]:
    """Return the lines of the README's first block, without comments."""
    text = (ROOT / "README.md").read_text().partition("\n## Try it\n")[2]
    block = text.partition("```sh\n")[2].partition("```")[0]
    return [line.partition("#")[0].strip() for line in block.splitlines()]


@contextmanager
def doing(command: str, files: Path, log: Path) -> Iterator[Process]:
    """Run a command in root's home on the machine, which ends with the block."""
    log.unlink(missing_ok=True)
    say(f"{command}   (what it says: {log.relative_to(ROOT)})")
    argv = ["bash", "-c", f"set -e; cd /root; {command}"]
    with machine.running(argv, log, online=True, files=files) as process:
        yield process


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
    files.chmod(0o755)  # others than root live there, too
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
def try_the_demo(server: Process, files: Path) -> None:
    """It prints the logins and an address, where the operator takes control and types."""
    ready = r"^Ready: (http://localhost:8000)/$"
    wait_until(
        lambda: re.search(ready, server.log(), re.MULTILINE) or not server.is_running,
        server.log,
        INSTALL_SECONDS,
    )
    [url] = re.findall(ready, server.log(), re.MULTILINE)
    logins = dict(re.findall(r"^ +(\w+) +password: (\S+)$", server.log(), re.MULTILINE))
    assert list(logins) == ["operator", "observer", "admin"]
    with closing(ApiClient.by_form(url, "operator", logins["operator"])) as operator:
        taken = operator.acquire("desk-1")
        driving = StreamClient(taken["session_url"], origin=url).shake_hands().in_control()
        driving.send(*pressed(f"echo mine > /{_TYPED}\n"))
        wait_until((files / _TYPED).exists, "it is typed")
        StreamClient.close_all()
    say("the operator has taken control, and typed")


def say(text: str) -> None:
    """Tell who waits."""
    sys.stdout.write(f"clean machine: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was through"))
    main(sys.argv[1:])
