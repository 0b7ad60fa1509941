"""deploy/desktop/start-desktop: where it listens, and the command line of its systemd unit."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.desktop import LiveDesktop
from tests.support.processes import ROOT, Process, free_port, stopping
from tests.support.timing import limit, wait_until
from tests.support.units import Unit, example

SCRIPT = ROOT / "deploy/desktop/start-desktop"
HERE = "127.0.0.1"
ELSEWHERE = "127.0.0.2"  # an address of its own that no other machine reaches


def banner(address: str, port: int) -> bytes:
    """Return how a VNC server greets; b"" where nobody listens."""
    try:
        with socket.create_connection((address, port), timeout=limit(1)) as link:
            return link.recv(12, socket.MSG_WAITALL)
    except ConnectionRefusedError:
        return b""


def refusal(*options: str) -> str:
    """Return with which words it does not start."""
    done = subprocess.run(
        [SCRIPT, *options], capture_output=True, text=True, timeout=limit(1), check=False
    )
    assert done.returncode == 1
    return done.stderr


def test_by_itself_a_desktop_is_reached_from_its_own_machine_only(desktop: LiveDesktop) -> None:
    for port in (desktop.vnc_port, desktop.websockify_port):
        with socket.create_connection((HERE, port), timeout=limit(1)):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((ELSEWHERE, port), timeout=limit(1))


def test_with_websockify_in_front_the_vnc_server_stays_on_its_own_machine(tmp_path: Path) -> None:
    desktop = LiveDesktop(tmp_path, "Far", "--listen", ELSEWHERE).wait()
    try:
        with socket.create_connection((ELSEWHERE, desktop.websockify_port), timeout=limit(1)):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HERE, desktop.websockify_port), timeout=limit(1))
        assert banner(ELSEWHERE, desktop.vnc_port) == b""
        assert banner(HERE, desktop.vnc_port) == b"RFB 003.008\n"
    finally:
        desktop.stop()


def test_the_command_line_of_the_unit_starts_a_desktop_where_its_file_says(tmp_path: Path) -> None:
    unit, port = Unit("deploy/desktop/desktop@.service"), free_port()
    (tmp_path / "vnc-password").write_text("deskpass\n")
    environment = unit.environment | example("deploy/desktop/desktop.env.example")
    environment |= {"PORT": str(port), "LISTEN": ELSEWHERE}
    command = unit.command(environment, {"i": "desk-1", "d": str(tmp_path), "t": str(tmp_path)})
    desktop = Process(command, log=tmp_path / "log", env={**os.environ, "HOME": str(tmp_path)})
    with stopping(desktop):
        wait_until(lambda: "ready: DISPLAY=" in desktop.log(), "it is ready", expected=5)
        assert banner(ELSEWHERE, port) == b"RFB 003.008\n"
        assert banner(HERE, port) == b""
        assert (tmp_path / "desktop-desk-1/port").read_text() == f"{port}\n"


def test_whoever_lets_others_in_sets_a_password() -> None:
    assert "without --password-file" in refusal("--listen", ELSEWHERE)


@pytest.mark.parametrize("address", ["desk.example.org", "::1", "127.0.0"])
def test_an_address_is_an_ipv4_address(address: str) -> None:
    assert f"not '{address}'" in refusal("--listen", address)


def test_a_port_that_is_taken_at_that_address_is_named(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("deskpass\n")
    with socket.create_server((ELSEWHERE, 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ("--password-file", str(tmp_path / "password"), "--listen", ELSEWHERE)
        assert f"port {port} is in use" in refusal("--port", port, *options)
        assert f"port {port} is in use" in refusal("--websockify-port", port, *options)
