"""The demo of ``make run``: two desktops, a database with users, and the server.

Everything it makes is kept in ``var/`` (keys, ports, logs, the SQLite database), so a second run
changes nothing that is already right. It stays in the foreground; Ctrl+C or TERM stops all that it
started, and so does the end of any part, which is named.

Environment: PORT (8000), HOST (127.0.0.1), and everything that the server itself understands
(DATABASE_URL, REDIS_URL, …; the table is in README.md).
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
VAR = ROOT / "var"
LOGS = VAR / "log"
START_SECONDS = 60
STOP_SECONDS = 12
TAIL_LINES = 20
USERS = ("operator", "observer", "admin")
FIRST_DESKTOP_PORT = 15900
# What the programs on a desktop get to see of our environment: no keys, no database addresses.
DESKTOP_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TERM", "TZ", "TMPDIR", "USER", "LOGNAME")


class Stop(Exception):
    """Somebody asked us to stop."""


class Failed(Exception):
    """Something does not work; the message is for the person at the terminal."""


@dataclass(frozen=True)
class Desktop:
    """One demo desktop: x11vnc on ``port`` and, if ``websockify_port`` is set, that in front."""

    slug: str
    name: str
    port: int
    websockify_port: int | None

    @property
    def upstream(self) -> str:
        """The address under which the server reaches it."""
        if self.websockify_port is None:
            return f"tcp://127.0.0.1:{self.port}"
        return f"ws://127.0.0.1:{self.websockify_port}/"


@dataclass(frozen=True)
class Part:
    """A running child in a session of its own, so that Ctrl+C reaches us and not all at once."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise Failed, with the end of its log, when it has ended."""
        status = self.process.poll()
        if status is not None:
            raise Failed(f"{self.name} has ended (exit status {status}).\n{tail(self.log)}")

    def stop(self) -> None:
        """Ask it to end, wait, and kill what is left of it."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def say(text: str) -> None:
    print(text, flush=True)


def tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join([f"The end of {log.relative_to(ROOT)}:", *(f"    {line}" for line in lines)])


# --- Kept in var/ ---------------------------------------------------------------------------------
def lock(path: Path) -> IO[str]:
    """Return the open file that marks a running demo, or raise Failed if there is one already."""
    handle = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failed("The demo of this directory is running already. Stop it first.") from None
    return handle


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the secret in ``path``; make one, readable by nobody else, when there is none."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(make() + "\n")
    return path.read_text(encoding="utf-8").strip()


def kept_ports(path: Path, names: Sequence[str], reserved: int) -> dict[str, int]:
    """Return a free port for each name, never ``reserved``; that of last time if it is free."""
    before: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    candidates = range(FIRST_DESKTOP_PORT, FIRST_DESKTOP_PORT + 1000)
    ports: dict[str, int] = {}
    for name in names:
        wanted = [before[name], *candidates] if name in before else candidates
        unused = (port for port in wanted if port not in {reserved, *ports.values()})
        ports[name] = next(port for port in unused if is_free("127.0.0.1", port))
    path.write_text(json.dumps(ports, indent=2) + "\n", encoding="utf-8")
    return ports


def is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


# --- The parts ------------------------------------------------------------------------------------
def start(name: str, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path) -> Part:
    """Start a child that gets TERM even when we are killed outright (setpriv, util-linux)."""
    log = LOGS / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    return Part(name, process, log)


def start_desktop(desktop: Desktop, password_file: Path) -> Part:
    home = VAR / "desktops" / desktop.slug / "home"
    home.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [ROOT / "deploy" / "desktop" / "start-desktop"]
    command += ["--port", str(desktop.port), "--title", desktop.name]
    command += ["--password-file", password_file, "--state-dir", home.parent / "state"]
    if desktop.websockify_port is not None:
        command += ["--websockify-port", str(desktop.websockify_port)]
    env = {name: os.environ[name] for name in DESKTOP_ENVIRONMENT if name in os.environ}
    return start(f"desktop {desktop.slug}", command, env | {"HOME": str(home)}, home)


def wait_for(part: Part, is_ready: Callable[[], bool]) -> None:
    """Return as soon as the part is ready; raise Failed when it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        part.check()
        if time.monotonic() > deadline:
            raise Failed(f"{part.name} does not answer.\n{tail(part.log)}")
        time.sleep(0.05)


def is_healthy(host: str, port: int, name: str) -> bool:
    """Whether the server answers when it is called by ``name`` (it knows which names are its)."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/healthz", headers={"Host": name})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def run(
    name: str,
    command: Sequence[str | Path],
    env: Mapping[str, str],
    text: str = "",
    umask: int = -1,
) -> None:
    """Run a preparing command to its end; raise Failed, with what it printed, if it fails."""
    log = LOGS / f"{name}.log"
    done = subprocess.run(
        command,
        input=text,
        text=True,
        capture_output=True,
        env=env,
        cwd=ROOT,
        umask=umask,
        check=False,
    )
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        raise Failed(f"{name} failed (exit status {done.returncode}).\n{tail(log)}")


# --- The demo -------------------------------------------------------------------------------------
def server_environment(host: str, port: int) -> dict[str, str]:
    env = dict(os.environ)
    env.setdefault("PUBLIC_URL", f"http://localhost:{port}")
    if not env.get("SECRET_KEY") and not env.get("SECRET_KEY_FILE"):
        env["SECRET_KEY"] = kept_secret(VAR / "secret_key", lambda: secrets.token_urlsafe(50))
    return env


def demo_desktops(server_port: int) -> list[Desktop]:
    names = ("desk-1", "desk-2", "desk-2 websockify")
    ports = kept_ports(VAR / "ports.json", names, reserved=server_port)
    return [
        Desktop("desk-1", "Desk 1", ports["desk-1"], None),
        Desktop("desk-2", "Desk 2", ports["desk-2"], ports["desk-2 websockify"]),
    ]


def prepare_data(desktops: Sequence[Desktop], password_file: Path, env: Mapping[str, str]) -> None:
    described = [
        {
            "slug": desktop.slug,
            "name": desktop.name,
            "upstream": desktop.upstream,
            "password_file": str(password_file),
        }
        for desktop in desktops
    ]
    command = [sys.executable, "scripts/demo_data.py"]
    # A new SQLite database is nobody else's to read.
    run("database", command, env, json.dumps(described), umask=0o077)
    if not is_collected():
        run("collectstatic", [sys.executable, "manage.py", "collectstatic", "--noinput"], env)


def is_collected() -> bool:
    """Whether the collected static files are newer than all that they are made from."""
    manifest = VAR / "static" / "staticfiles.json"
    # The two hidden files change whenever scripts/setup installs packages.
    sources = [
        ROOT / ".venv" / ".desktopctl",
        ROOT / "node_modules" / ".desktopctl",
        *(ROOT / "desktopctl").glob("*.py"),
        ROOT / "static",
        *(ROOT / "static").rglob("*"),
    ]
    return manifest.exists() and manifest.stat().st_mtime > max(
        source.stat().st_mtime for source in sources
    )


def parse_port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 1 << 16:
        return int(text)
    raise Failed(f"PORT must be a number from 1 to 65535, not “{text}”.")


def run_demo(parts: list[Part]) -> None:
    """Start everything, adding to ``parts``, and watch over it. It ends by an exception only."""
    host, port = os.environ.get("HOST") or "127.0.0.1", parse_port(os.environ.get("PORT") or "8000")
    if not is_free(host, port):
        raise Failed(
            f"Port {port} is in use. Stop what uses it, or choose another one: "
            f"make run PORT={port + 1}"
        )
    env = server_environment(host, port)
    password_file = VAR / "vnc_password"
    kept_secret(password_file, lambda: secrets.token_hex(4))

    say("Starting two desktops, preparing the database …")
    desktops = demo_desktops(port)
    parts.extend(start_desktop(desktop, password_file) for desktop in desktops)
    prepare_data(desktops, password_file, env)
    for part in parts:
        wait_for(part, lambda log=part.log: b"ready:" in log.read_bytes())  # type: ignore[misc]

    command = [sys.executable, "manage.py", "serve", "--host", host, "--port", str(port)]
    server = start("server", command, env, ROOT)
    parts.append(server)
    wait_for(server, lambda: is_healthy(host, port, urlsplit(env["PUBLIC_URL"]).netloc))
    introduce(host, port)
    while True:
        for part in parts:
            part.check()
        time.sleep(0.2)


def introduce(host: str, port: int) -> None:
    if host not in {"127.0.0.1", "localhost", "::1"}:
        say(
            f"\nWARNING: reachable from other machines ({host}), and these passwords are no secret."
        )
    say(f"\nLogs: {LOGS.relative_to(ROOT)}/. Press Ctrl+C to stop.\nLog in as one of these:")
    for name in USERS:
        say(f"    {name:10} password: {name}-demo")
    say(f"\nReady: http://localhost:{port}/")


def on_signal(number: int, frame: Any) -> None:
    # Once is enough: a second Ctrl+C must not cut the stopping short.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Stop


def main() -> int:
    """Run the demo until it is told to stop; return the exit status."""
    LOGS.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    parts: list[Part] = []
    try:
        with lock(VAR / "demo.lock"):
            try:
                run_demo(parts)
            finally:
                for part in reversed(parts):
                    part.stop()
    except Stop:
        say("\nStopped.")
        return 0
    except Failed as error:
        print(f"make run: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
