"""The steps of the Dockerfile and the server that comes out of them, as far as that is possible
without a container: an unprivileged user, a tree that cannot be written, secrets in files.

Installing packages is left out. Of those that are installed already, the tree sees only what
requirements.txt brings along.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import urllib.request
import venv
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support.databases import Databases
from tests.support.dockerfile import Dockerfile
from tests.support.processes import (
    ROOT,
    Process,
    free_port,
    program,
    stopping,
    unprivileged_user,
)
from tests.support.timing import limit, wait_until

STAGES = Dockerfile.read().stages
IMAGE = STAGES[-1]
INSTALLS = ("npm ci", "pip ")
OF_ROOT = ("groupadd", "install --directory")


# Our Python may lie in a directory of root's. This right opens it for reading, and nothing else.
LOOK_EVERYWHERE = ",+dac_read_search"
LOOK_EVERYWHERE_BIT = 1 << 2


class Image:
    """What the image holds, in ``directory``/app, and around it a home and a /tmp."""

    def __init__(self, directory: Path) -> None:
        self.app = directory / "app"
        self.home = directory / "home"
        self.tmp = directory / "tmp"
        for each in (self.app, self.home, self.tmp):
            each.mkdir(parents=True)
        self._user = unprivileged_user()

    def build(self) -> None:
        """Do what the stages do; then nobody may write any more."""
        novnc = Path("node_modules/@novnc")
        shutil.copytree(ROOT / novnc, self.app / novnc)
        make_virtualenv(self.app / ".venv")
        for stage in STAGES:
            for sources, target in stage.copies:
                self._copy(sources, target)
            for command in stage.all("RUN"):
                if not any(each in command for each in (*INSTALLS, *OF_ROOT)):
                    self._run(command, stage.environment)
        for path in [self.home, self.app, *self.app.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)
        if os.geteuid() == 0:
            shutil.chown(self.tmp, self._user)

    def _copy(self, sources: list[str], target: str) -> None:
        for source in sources:
            path = ROOT / source
            if path.is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(path, self.app / target, ignore=ignore)
            else:
                shutil.copy(path, self.app / target)

    def _run(self, command: str, environment: dict[str, str]) -> None:
        subprocess.run(
            ["sh", "-c", self.here(command)],
            cwd=self.app,
            env=self.environment(environment),
            stdout=subprocess.DEVNULL,
            timeout=limit(10),
            check=True,
        )

    def here(self, text: str) -> str:
        """Return a text of the Dockerfile with the image's place for the container's."""
        return text.replace("/app/", f"{self.app}/")

    def environment(self, env: dict[str, str]) -> dict[str, str]:
        """Return what a process in the container would see."""
        own = {"PATH": os.environ["PATH"], "HOME": str(self.home), "TMPDIR": str(self.tmp)}
        return own | {name: self.here(value) for name, value in env.items()}

    def start(self, *arguments: str, log: Path, env: dict[str, str]) -> Process:
        """Run the entry point with ``arguments``, as a user who owns nothing."""
        argv = [self.here(word) for word in IMAGE.argv("ENTRYPOINT")]
        return Process(
            [*self._drop_rights(), *argv, *arguments],
            log=log,
            env=self.environment(IMAGE.environment | env),
            cwd=self.app,
        )

    def _drop_rights(self) -> list[str]:
        drop = [program("setpriv", "util-linux"), "--no-new-privs"]
        if os.geteuid() == 0:
            group = pwd.getpwnam(self._user).pw_gid
            keep = f"-all{LOOK_EVERYWHERE if may_look_everywhere() else ''}"
            drop += [f"--reuid={self._user}", f"--regid={group}", "--clear-groups"]
            drop += [f"--{kind}={keep}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
        return [*drop, "--"]

    def state(self) -> dict[str, int]:
        """Return all that is there, /tmp aside, and when it changed."""
        places = [self.home, self.app, *self.app.rglob("*")]
        return {str(path): path.lstat().st_mtime_ns for path in places}


def facts_of(process: int | str) -> dict[str, list[str]]:
    """Return what the kernel says of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def may_look_everywhere() -> bool:
    """Whether we may hand that right on: in some containers not even root has it."""
    return bool(int(facts_of("self")["CapBnd"][0], 16) & LOOK_EVERYWHERE_BIT)


def make_virtualenv(directory: Path) -> None:
    """Make one that has what requirements.txt asks for, and nothing that tests or linters need."""
    venv.create(directory, symlinks=True, with_pip=False)
    [packages] = directory.glob("lib/python*/site-packages")
    for name in needed_packages():
        for file in distribution(name).files or []:
            top = file.parts[0]
            if top != ".." and not (packages / top).exists():
                (packages / top).symlink_to(Path(str(distribution(name).locate_file(top))))


def needed_packages() -> set[str]:
    """Return the names of what requirements.txt brings along."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    waiting = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for extra in {"", *wanted.extras}:
            if (wanted.name, extra) not in seen:
                seen.add((wanted.name, extra))
                waiting += required_by(wanted.name, extra)
    return {name for name, _ in seen}


def required_by(name: str, extra: str) -> list[Requirement]:
    found = [Requirement(text) for text in distribution(name).requires or []]
    return [each for each in found if not each.marker or each.marker.evaluate({"extra": extra})]


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image, where another user may look at it (not below pytest's own directory)."""
    directory = Path(tempfile.mkdtemp(prefix="desktopctl-image-"))
    directory.chmod(0o755)
    image = Image(directory)
    image.build()
    yield image
    for path in [image.app, *image.app.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def secrets(databases: Databases, image: Image) -> dict[str, str]:
    """Files as compose mounts them."""
    directory = image.app.parent
    contents = {"SECRET_KEY": "k" * 60, "DATABASE_URL": databases.fresh("postgres").url}
    for name, content in contents.items():
        (directory / name).write_text(f"{content}\n")
        (directory / name).chmod(0o444)
    return {f"{name}_FILE": str(directory / name) for name in contents}


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=limit(1)) as answer:
        assert answer.status == 200
        content: bytes = answer.read()
        return content


def is_healthy(image: Image, port: int) -> bool:
    """Whether the container's own health check would pass."""
    command = [image.here(word.replace("8000", str(port))) for word in IMAGE.argv("HEALTHCHECK")]
    done = subprocess.run(
        command,
        env=image.environment({}),
        stderr=subprocess.DEVNULL,
        timeout=limit(1),
        check=False,
    )
    return done.returncode == 0


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_the_image_serves_without_writing_anything(
    image: Image, secrets: dict[str, str], tmp_path: Path, server: str
) -> None:
    port, before = free_port(), image.state()
    words = [word.replace("8000", str(port)) for word in IMAGE.argv("CMD")]
    arguments = [word.replace("0.0.0.0", "127.0.0.1") for word in words]
    log = tmp_path / "log"
    process = image.start(*arguments, "--server", server, log=log, env=secrets)
    with stopping(process):
        wait_until(lambda: ended(process) or is_healthy(image, port), "it is healthy", expected=3)
        assert_unprivileged(process)
        assert b'"status": "ok"' in get(port, "/readyz")
        page = get(port, "/accounts/login/").decode()
        styles = page.partition('href="/static/')[2].partition('"')[0]
        assert get(port, f"/static/{styles}"), "collected, with a hash in its name"
        assert (image.app / "staticfiles" / styles).is_file()
    assert not is_healthy(image, port)
    assert image.state() == before
    assert list(image.tmp.iterdir()) == []
    assert "Traceback" not in process.log()


def test_the_worker_runs_without_writing_anything(
    image: Image, secrets: dict[str, str], tmp_path: Path
) -> None:
    [command] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["webhooks"][
        "command"
    ]
    before = image.state()
    worker = image.start(command, "--once", log=tmp_path / "log", env=secrets)
    assert worker.wait(expected=5) == 0, worker.log()
    assert image.state() == before
    assert list(image.tmp.iterdir()) == []
    assert "Traceback" not in worker.log()


def ended(process: Process) -> bool:
    assert process.is_running, process.log()
    return False


def assert_unprivileged(process: Process) -> None:
    """It is not root, and may at most read."""
    facts = facts_of(process.pid)
    assert "0" not in facts["Uid"] + facts["Gid"]
    assert int(facts["CapEff"][0], 16) in {0, LOOK_EVERYWHERE_BIT}
    assert facts["NoNewPrivs"] == ["1"]


def test_the_image_migrates_an_empty_database(image: Image, tmp_path: Path) -> None:
    file = image.tmp / "new.sqlite3"
    env = {"DATABASE_URL": f"sqlite:///{file}", "SECRET_KEY": "k" * 60}
    migration = image.start("migrate", "--noinput", log=tmp_path / "log", env=env)
    assert migration.wait(expected=5) == 0, migration.log()
    file.unlink()


# --- deploy/container/make-secrets ----------------------------------------------------------------
@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory in which the script makes its secrets."""
    place = tmp_path / "deploy/container"
    place.mkdir(parents=True)
    shutil.copy(ROOT / "deploy/container/make-secrets", place)
    return tmp_path


def make_secrets(tree: Path) -> dict[str, str]:
    subprocess.run([tree / "deploy/container/make-secrets"], check=True, stdout=subprocess.PIPE)
    return {path.name: path.read_text() for path in (tree / "secrets").iterdir()}


def test_secrets_are_made_once_and_fit_together(tree: Path) -> None:
    made = make_secrets(tree)
    assert make_secrets(tree) == made
    password = made["database_password"].strip()
    assert made["database_url"] == f"postgres://desktopctl:{password}@postgres/desktopctl\n"
    assert len(password) == len(made["secret_key"].strip()) == 64
    assert password != made["secret_key"].strip()


def test_on_this_machine_nobody_else_reads_the_secrets(tree: Path) -> None:
    make_secrets(tree)
    assert stat.S_IMODE((tree / "secrets").stat().st_mode) == 0o700
    # The server in the container is another user, and reads what is mounted.
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tree / "secrets").iterdir()} == {0o444}
