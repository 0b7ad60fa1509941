"""A real desktop: Xvfb, a window manager, a terminal, x11vnc and websockify."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.support.processes import ROOT, Process, free_port, program
from tests.support.timing import limit, wait_until
from tests.support.x11_state import held_on

PASSWORD = "deskpass"


class SpareVnc:
    """An x11vnc of its own on a desktop: it can end without the desktop ending with it."""

    def __init__(self, desktop: LiveDesktop, directory: Path) -> None:
        self.port = free_port()
        self._desktop = desktop
        self._log = directory / "x11vnc.log"
        self._process: Process | None = None

    def start(self) -> Self:
        """Serve; returns when it answers. After ``kill``, on the same port."""
        x11vnc = (
            f"ulimit -n 1024; exec '{program('x11vnc', 'x11vnc')}' -rfbport {self.port} -localhost"
            f" -passwdfile 'read:{self._desktop.password_file}' -no6 -noipv6 -shared -forever"
            " -noprimary -xkb -repeat -noxrecord -safer -nocmds -norc -readtimeout 5"
        )
        environment = self._desktop.environment
        self._process = Process(
            [program("bash", "bash"), "-c", x11vnc], log=self._log, env=environment
        )
        wait_until(self._greets, "x11vnc answers", expected=2)
        return self

    def kill(self) -> None:
        """End it at once. Killing twice is harmless."""
        if self._process:
            self._process.kill()

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=limit(0.5)) as link:
                return link.recv(3) == b"RFB"
        except OSError:
            return False


class LiveDesktop:
    """Xvfb, openbox, xterm, x11vnc and websockify, as the demo starts them."""

    def __init__(self, directory: Path, title: str, *options: str) -> None:
        self.directory = directory
        self.vnc_port, self.websockify_port = free_port(), free_port()
        self.password = PASSWORD
        self.password_file = directory / "password"
        self.password_file.write_text(f"{PASSWORD}\n")
        self._process = Process(
            [
                program("bash", "bash"),
                ROOT / "deploy/desktop/start-desktop",
                *("--port", str(self.vnc_port), "--websockify-port", str(self.websockify_port)),
                *("--password-file", self.password_file, "--state-dir", directory / "state"),
                *("--title", title, "--geometry", "800x600", *options),
            ],
            log=directory / "log",
        )

    def wait(self) -> Self:
        """Return when the desktop answers."""
        wait_until(self._is_ready, f"the desktop is ready: {self._process.log()}", expected=5)
        return self

    def _is_ready(self) -> bool:
        assert self._process.is_running, self._process.log()
        return "ready: DISPLAY=" in self._process.log()

    def stop(self) -> None:
        """End it and all its parts."""
        self._process.stop(expected=3)

    @property
    def environment(self) -> dict[str, str]:
        """What an X program on this desktop needs."""
        state = self.directory / "state"
        return {
            **os.environ,
            "DISPLAY": (state / "display").read_text().strip(),
            "XAUTHORITY": str(state / "Xauthority"),
        }

    def run(self, *argv: str, text: str = "") -> str:
        """Run a program on the desktop and return what it printed."""
        done = subprocess.run(
            [program(argv[0], argv[0]), *argv[1:]],
            env=self.environment,
            input=text,
            stdout=subprocess.PIPE,
            text=True,
            timeout=limit(2),
            check=True,
        )
        return done.stdout

    def held(self) -> dict[str, list[Any]]:
        """What is held down: ``{"keys": [names], "buttons": [numbers]}``."""
        return held_on(self.environment)

    def pause(self) -> None:
        """Let the VNC server hang: it accepts, and answers nothing, until ``resume()``."""
        self._signal_x11vnc(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        self._signal_x11vnc(signal.SIGCONT)

    def _signal_x11vnc(self, number: signal.Signals) -> None:
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        named = [int(c) for c in children if Path(f"/proc/{c}/comm").read_text() == "x11vnc\n"]
        assert len(named) == 1, f"one x11vnc belongs to this desktop, not {named}"
        os.kill(named[0], number)

    @property
    def clipboard(self) -> str:
        """What a paste on the desktop would insert."""
        # xclip fails while nobody owns the selection: then there is nothing to paste.
        done = subprocess.run(
            [program("xclip", "xclip"), "-o", "-selection", "clipboard"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=limit(2),
            check=False,
        )
        return done.stdout

    def copy(self, text: str) -> None:
        """Copy on the desktop, as a program there would."""
        # xclip stays to serve the selection: its output must not be waited for.
        subprocess.run(
            [program("xclip", "xclip"), "-i", "-selection", "clipboard"],
            env=self.environment,
            input=text,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=limit(2),
            check=True,
        )
