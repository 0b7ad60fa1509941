"""TigerVNC's Xvnc: X server and VNC server in one, which knows what x11vnc does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from tests.support.desktop import PASSWORD
from tests.support.processes import Process, free_port, program
from tests.support.timing import wait_until
from tests.support.x11_state import held_on

# "deskpass" in the scrambled form that VNC password files have (tigervncpasswd -f).
_SCRAMBLED = bytes.fromhex("b2ec6fbeff04a4dc")


class Xvnc:
    """An empty desktop behind VNC authentication, on 127.0.0.1:``port``."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.socket = directory / "rfb.sock"
        self.password = PASSWORD
        self.password_file = directory / "password"
        self.password_file.write_text(f"{PASSWORD}\n")
        self._display_number = directory / "display"
        self._process = Process(
            ["sh", "-c", self._script(directory)], log=directory / "log", cwd=directory
        )

    @property
    def url(self) -> str:
        """The address for a workspace."""
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What an X program on this desktop needs."""
        return {**os.environ, "DISPLAY": f":{self._display_number.read_text().strip()}"}

    def held(self) -> dict[str, list[Any]]:
        """What is held down: ``{"keys": [names], "buttons": [numbers]}``."""
        return held_on(self.environment)

    def wait(self) -> Self:
        """Return when X and VNC answer."""
        wait_until(self._is_ready, "Xvnc is ready", expected=2)
        return self

    def log(self) -> str:
        """What it has printed: each attempt to connect among it."""
        return self._process.log()

    def stop(self) -> None:
        """End it. Stopping twice is harmless."""
        self._process.stop()

    def _is_ready(self) -> bool:
        assert self._process.is_running, self._process.log()
        # The number is written when the server, its VNC port included, is up.
        return self._display_number.read_text().endswith("\n")

    def _script(self, directory: Path) -> str:
        xvnc = program("Xtigervnc", "tigervnc-standalone-server")
        (directory / "passwd").write_bytes(_SCRAMBLED)
        self._display_number.touch()
        # -ac: no cookie. Only our own machine can connect, and the display lives for moments.
        return (
            f"exec '{xvnc}' -displayfd 3 -ac -nolisten tcp -localhost -geometry 640x480 -depth 24"
            f" -rfbport {self.port} -rfbunixpath rfb.sock"
            " -SecurityTypes VncAuth -PasswordFile passwd 3>display"
        )
