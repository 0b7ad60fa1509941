"""nginx and Caddy, the real ones, with the very files of deploy/: only places and names are others.

A client believes their certificate while ``SSL_CERT_FILE`` names ``certificate``.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from socket import create_connection
from typing import ClassVar, Self

from tests.support.processes import ROOT, Process, free_port, program
from tests.support.timing import limit, wait_until
from tests.support.websockify import make_certificate

NAME = "127.0.0.1"
CONNECTIONS = 2048  # of an nginx

_NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
{user}
events {{
    worker_connections {connections};
}}
http {{
    include /etc/nginx/mime.types;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {site};
}}
"""


class ReverseProxy:
    """Listens for TLS on 127.0.0.1:``port`` in front of the nodes at these ports.

    ``changes`` are (old, new) texts of its configuration, each of which must be there.
    """

    source: ClassVar[str]
    command: ClassVar[tuple[str, str]]  # and its Debian package

    def __init__(
        self, directory: Path, nodes: Sequence[int], changes: Mapping[str, str] | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port, self.plain_port = free_port(), free_port()
        self.certificate, self.key = make_certificate(directory, NAME)
        self._directory = directory
        self._nodes = [f"{NAME}:{port}" for port in nodes]
        self._config = self._write(dict(changes or {}))
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """Where people reach it."""
        return f"https://{NAME}:{self.port}"

    def check(self) -> str:
        """Let it look through its configuration; return what it says."""
        done = subprocess.run(
            [program(*self.command), *self._argv("check")],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=limit(3),
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        return said

    def start(self) -> Self:
        """Serve; returns when it listens."""
        self._process = Process(
            [program(*self.command), *self._argv("run")],
            log=self._directory / "output.log",
            env=self._environment(),
        )
        wait_until(self._listens, f"{self.command[0]} listens", expected=2)
        return self

    def stop(self) -> None:
        """End it. Stopping twice is harmless."""
        if self._process:
            self._process.stop()

    def logs(self) -> str:
        """All that it has written down."""
        return "".join(path.read_text() for path in sorted(self._directory.glob("*.log")))

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.is_running, self.logs()
        try:
            create_connection((NAME, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _write(self, changes: dict[str, str]) -> Path:
        raise NotImplementedError

    def _argv(self, action: str) -> list[str | Path]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)


class Nginx(ReverseProxy):
    """nginx with deploy/nginx/desktopctl.conf."""

    source = "deploy/nginx/desktopctl.conf"
    command = "nginx", "nginx"

    def _write(self, changes: dict[str, str]) -> Path:
        first, *others = re.findall(r"    server \S+:\d+ (.*;)\n", (ROOT / self.source).read_text())
        assert set(others) == {first}, "all nodes are alike"
        changes |= {
            "listen 80;": f"listen {NAME}:{self.plain_port};",
            "listen 443 ssl;": f"listen {NAME}:{self.port} ssl;",
            "/etc/desktopctl/tls/cert.pem": str(self.certificate),
            "/etc/desktopctl/tls/key.pem": str(self.key),
            "/var/log/nginx": str(self._directory),
            "desks.example.org": NAME,
        }
        text = _changed(self.source, changes)
        servers = "\n".join(f"    server {node} {first}" for node in self._nodes)
        text = re.sub(r"(    server \S+:\d+ .*;\n)+", f"{servers}\n", text)
        site = self._directory / "site.conf"
        site.write_text(text)
        config = self._directory / "nginx.conf"
        # As root, its workers would become somebody who may not enter the directories of tests.
        user = "user root;" if os.geteuid() == 0 else ""
        # A display takes two; nginx complains where it may not have as many files.
        connections = min(CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        config.write_text(
            _NGINX.format(directory=self._directory, site=site, user=user, connections=connections)
        )
        return config

    def _argv(self, action: str) -> list[str | Path]:
        argv: list[str | Path] = ["-p", self._directory, "-c", self._config]
        argv += ["-e", self._directory / "early.log"]
        return [*argv, "-t"] if action == "check" else argv


class Caddy(ReverseProxy):
    """Caddy with deploy/caddy/Caddyfile, and a certificate that it does not have to ask for."""

    source = "deploy/caddy/Caddyfile"
    command = "caddy", "caddy"

    def _write(self, changes: dict[str, str]) -> Path:
        options = (
            f"admin off\n\tocsp_stapling off\n\thttp_port {self.plain_port}\n\tdefault_bind {NAME}"
        )
        changes |= {
            "{\n\t# Caddy would log": f"{{\n\t{options}\n\t# Caddy would log",
            "desks.example.org {\n": (
                f"https://{NAME}:{self.port} {{\n\ttls {self.certificate} {self.key}\n"
            ),
        }
        text = _changed(self.source, changes)
        text = re.sub(r"(127\.0\.0\.1:800\d ?)+", f"{' '.join(self._nodes)} ", text)
        config = self._directory / "Caddyfile"
        config.write_text(text)
        return config

    def _argv(self, action: str) -> list[str | Path]:
        verb = "validate" if action == "check" else "run"
        return [verb, "--config", self._config, "--adapter", "caddyfile"]

    def _environment(self) -> dict[str, str]:
        own = {"HOME": str(self._directory), "XDG_DATA_HOME": str(self._directory)}
        return {**os.environ, **own, "XDG_CONFIG_HOME": str(self._directory)}


def _changed(source: str, changes: Mapping[str, str]) -> str:
    """Return a file of ours with these texts changed; each has to be there."""
    text = (ROOT / source).read_text()
    for old, new in changes.items():
        assert old in text, f"{source} does not say {old!r} any more"
        text = text.replace(old, new)
    return text
