"""The product itself: ``manage.py serve`` and the other commands, with a database of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Self

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from tests.support import commands
from tests.support.processes import ROOT, Process, free_port
from tests.support.timing import limit, wait_until

_POPULATE = """
import json, sys
from datetime import timedelta
from pathlib import Path
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.utils.timezone import now
facts = json.load(sys.stdin)
for name, password in facts["passwords"].items():
    is_admin = name == "admin"
    User.objects.create(username=name, password=password, is_staff=is_admin, is_superuser=is_admin)
for slug, upstream in facts["upstreams"].items():
    call_command("add_workspace", slug, upstream=upstream, name=slug.title().replace("-", " "),
                 password_file=Path(facts["password_file"]))
    for name in ("operator", "observer"):
        call_command("grant", slug, name, name)
for user in User.objects.all():
    login = {
        auth.SESSION_KEY: str(user.pk),
        auth.BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0],
        auth.HASH_SESSION_KEY: user.get_session_auth_hash(),
    }
    Session.objects.save(f"session-of-{user.username}", login, now() + timedelta(days=1))
"""

_PEOPLE = ("operator", "observer", "admin")
_SALT = "only-for-tests-0123456789"  # as long as Django's own, or it would hash anew at a login


@cache
def _hashed(password: str) -> str:
    """Return what the database keeps of a password; to hash one is slow on purpose."""
    return PBKDF2PasswordHasher().encode(password, _SALT)


class LiveServer:
    """``manage.py serve`` with a database of its own; ``port`` may be shown behind a proxy."""

    def __init__(self, directory: Path, database_url: str, **env: object) -> None:
        self.port = free_port()
        self._directory = directory
        self._env = {
            **os.environ,
            "DATABASE_URL": database_url,
            "PUBLIC_URL": f"http://localhost:{self.port}",
            "STATIC_ROOT": str(directory / "static"),
            "PYTHONWARNINGS": "error",
            **{name: str(value) for name, value in env.items()},
        }
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://localhost:{self.port}"

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._process is not None
        return self._process.pid

    def manage(self, *argv: str | Path, text: str = "") -> str:
        """Run a management command and return what it printed."""
        return commands.run([str(each) for each in argv], self._env, text, limit(10))

    def manage_quietly(self, *argv: str) -> None:
        """Run a command whose exit code does not matter."""
        with suppress(commands.CommandFailed):
            self.manage(*argv)

    def manage_as_typed(self, *argv: str | Path, text: str = "") -> str:
        """Run a command in a process with its own command line, as people do, whatever comes of it.

        Returns all that it printed, complaints included.
        """
        done = subprocess.run(
            [sys.executable, "manage.py", *map(str, argv)],
            cwd=ROOT,
            env=self._env,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit(10),
            check=False,
        )
        return done.stdout

    def populate(self, upstreams: dict[str, str], password_file: Path) -> None:
        """Add an operator, an observer and an admin, and workspaces that they may use.

        Their passwords are ``<name>-pass``, and each has a login, ``session-of-<name>``.
        """
        facts = {
            "upstreams": upstreams,
            "password_file": str(password_file),
            "passwords": {name: _hashed(f"{name}-pass") for name in _PEOPLE},
        }
        self.manage("shell", "-c", _POPULATE, text=json.dumps(facts))

    def twin(self, directory: Path) -> LiveServer:
        """Return another one on the same database, with the same settings, not started yet."""
        directory.mkdir()
        twin = LiveServer(directory, "")
        twin._env = {**self._env, "PUBLIC_URL": twin.url}
        return twin

    def start(self, kind: str = "uvicorn") -> Self:
        """Serve; returns when it answers. After ``stop`` or ``kill``, on the same port."""
        argv = self._serve("--server", kind)
        return self._started(commands.start(argv, self._env, self._log_file))

    def start_as_typed(self, kind: str = "uvicorn", *options: str) -> Self:
        """Do so in a process with its own command line, memory and imports, as people do.

        For what is measured, for workers, and for an environment that Python reads.
        """
        argv = [sys.executable, "manage.py", *self._serve("--server", kind, *options)]
        return self._started(Process(argv, log=self._log_file, env=self._env))

    def _serve(self, *options: str) -> list[str]:
        return ["serve", "--port", str(self.port), *options]

    def _started(self, process: Process) -> Self:
        self._process = process
        wait_until(self._answers, "the server answers", expected=5)
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.is_running, self.log
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/healthz", timeout=2
            ) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    @property
    def memory(self) -> int:
        """What the server occupies now, in bytes (the resident set; one process)."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    @property
    def log(self) -> str:
        """All that the server has printed."""
        return self._log_file.read_text()

    @property
    def _log_file(self) -> Path:
        return self._directory / "server.log"

    def ask_to_stop(self) -> None:
        """Return at once; ``stop()`` waits for the end."""
        assert self._process is not None
        self._process.send(signal.SIGTERM)

    def stop(self) -> None:
        """End it in order; AssertionError if it does not end by itself."""
        if self._process and self._process.is_running:
            code = self._process.stop(expected=3)
            assert code != -signal.SIGKILL, f"the server has not ended by itself:\n{self.log}"

    def kill(self) -> None:
        """End it at once, without a word to anybody."""
        if self._process:
            self._process.kill()
