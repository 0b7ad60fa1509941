"""Stands in for systemctl, where no systemd runs: does what unit files say.

Of a unit it heeds what starts a program: User=, WorkingDirectory=, Environment=, EnvironmentFile=,
RuntimeDirectory=, LoadCredential=, LimitNOFILE=, CapabilityBoundingSet=, NoNewPrivileges= and the
Exec*= lines. It builds no sandbox (systemd-analyze looks at that: tests/unit/test_deploy.py), and
restarts nothing that ends.
"""

from __future__ import annotations

import os
import pwd
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.units import Unit, assignments, filled

_PLACES = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))
_RUN = Path("/run")
_LOGS = Path("/var/log/units")
_END_SECONDS = 30


class Service:
    """A unit by its name, ``desktopctl@8000`` say."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._template, at, self._instance = name.partition("@")
        files = [place / f"{self._template}{at}.service" for place in _PLACES]
        found = [file for file in files if file.is_file()]
        if not found:
            sys.exit(f"Unit {name}.service not found.")
        self._unit = Unit(str(found[0]))
        self._daemons = self._get("Type") == "forking"
        self._pid_file = Path(self._get("PIDFile") or _RUN / f"{name}.main-pid")
        self._credentials = _RUN / "credentials" / name
        self._log = _LOGS / f"{name}.log"

    def start(self) -> None:
        """Start it, if it does not run; ends this program with what it has said if it fails."""
        if self._pid():
            return
        self._make_directories()
        self._run("ExecStartPre")
        if self._daemons:
            self._run("ExecStart")
            while not self._pid():
                time.sleep(0.05)
        else:
            self._pid_file.write_text(str(self._launch("ExecStart").pid))
        self._run("ExecStartPost")

    def stop(self) -> None:
        """End its main process, and wait for that."""
        deadline = time.monotonic() + _END_SECONDS
        while pid := self._pid():
            os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(0.1)

    def reload(self) -> None:
        """Let it read its configuration anew."""
        self._run("ExecReload")

    def _pid(self) -> int | None:
        """Its main process, if it runs: nobody here waits for those that have ended."""
        pid = self._pid_file.read_text().split() if self._pid_file.exists() else []
        stat = Path("/proc", *pid[:1], "stat")
        return int(pid[0]) if pid and stat.exists() and ") Z " not in stat.read_text() else None

    def _get(self, key: str, default: str = "") -> str:
        """Return a setting of the unit; %i is its instance."""
        return self._unit[key].replace("%i", self._instance) if key in self._unit else default

    def _make_directories(self) -> None:
        _LOGS.mkdir(exist_ok=True)
        user = self._get("User", "root")
        if name := self._get("RuntimeDirectory"):
            (_RUN / name).mkdir(exist_ok=True)
            (_RUN / name).chmod(int(self._get("RuntimeDirectoryMode", "0755"), 8))
            shutil.chown(_RUN / name, user, pwd.getpwnam(user).pw_gid)
        if credential := self._get("LoadCredential"):
            name, _, source = credential.partition(":")
            self._credentials.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, self._credentials / name)
            shutil.chown(self._credentials / name, user)
            (self._credentials / name).chmod(0o400)

    def _run(self, key: str) -> None:
        """Run what the unit says at this moment, if anything, to its end."""
        if key not in self._unit:
            return
        code = self._launch(key).wait()
        if code and not self._unit[key].startswith("-"):
            sys.exit(f"{self._log.read_text()}\n{self.name}: {key} ended with {code}")

    def _launch(self, key: str) -> subprocess.Popen[bytes]:
        environment = self._environment()
        specifiers = {"i": self._instance, "t": str(_RUN), "d": str(self._credentials)}
        words = shlex.split(self._unit[key].removeprefix("-"))
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*self._rights(), *filled(words, environment, specifiers)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self._get("WorkingDirectory", "/").replace("~", environment["HOME"]),
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        user = pwd.getpwnam(self._get("User", "root"))
        own = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": user.pw_dir}
        own |= {"USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": user.pw_shell}
        own |= assignments(self._get("Environment"))
        file = self._get("EnvironmentFile")
        if file and (not file.startswith("-") or Path(file[1:]).exists()):
            own |= assignments(Path(file.removeprefix("-")).read_text())
        return own

    def _rights(self) -> list[str]:
        user = self._get("User", "root")
        group = str(pwd.getpwnam(user).pw_gid)
        words = ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups"]
        if self._get("CapabilityBoundingSet", "all") == "":
            words += ["--bounding-set=-all", "--inh-caps=-all"]
        if self._get("NoNewPrivileges") == "yes":
            words.append("--no-new-privs")
        if wanted := self._get("LimitNOFILE"):
            # In a container, not even root may have more than there are already.
            files = min(int(wanted), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            words = ["prlimit", f"--nofile={files}", *words]
        return [*words, "--"]


def units_of(name: str) -> list[str]:
    """Return the units that Debian starts by this name: PostgreSQL has one for each cluster."""
    if name != "postgresql":
        return [name]
    clusters = Path("/etc/postgresql").glob("*/*")
    return [f"postgresql@{each.parent.name}-{each.name}" for each in clusters]


def main() -> None:
    """Do what systemctl would, as far as the documents ask; fail for all else."""
    verb, *names = sys.argv[1:]
    if [verb, *names] == ["daemon-reload"]:
        return
    if verb == "enable" and names[0] == "--now":
        verb, names = "start", names[1:]
    actions = {
        "start": [Service.start],
        "stop": [Service.stop],
        "restart": [Service.stop, Service.start],
        "reload": [Service.reload],
    }
    for name in names:
        for unit in units_of(name):
            for action in actions[verb]:
                action(Service(unit))


if __name__ == "__main__":
    main()
