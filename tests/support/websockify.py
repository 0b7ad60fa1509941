"""websockify, the real one, in front of a VNC server."""

from __future__ import annotations

import datetime
import ipaddress
import sys
from pathlib import Path
from socket import create_connection
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.processes import Process, free_port
from tests.support.timing import wait_until


class Websockify:
    """Listens on 127.0.0.1:``port``; ``options`` are websockify's, ``target`` is host:port."""

    def __init__(self, directory: Path, target: str = "", *options: str | Path) -> None:
        self.port = free_port()
        argv = [sys.executable, "-m", "websockify", *options, f"127.0.0.1:{self.port}", target]
        self._process = Process(
            [part for part in argv if part], log=directory / f"websockify-{self.port}.log"
        )

    def wait(self) -> Self:
        """Return when it listens."""
        wait_until(self._listens, "websockify listens")
        return self

    def log(self) -> str:
        """What it has printed."""
        return self._process.log()

    def stop(self) -> None:
        """End it. Stopping twice is harmless."""
        self._process.stop()

    def _listens(self) -> bool:
        assert self._process.is_running, self._process.log()
        try:
            create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def make_certificate(directory: Path, name: str = "127.0.0.1") -> tuple[Path, Path]:
    """Write a certificate for an address, its own authority, and its key; return both files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "desktopctl tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    files = directory / f"{name}.pem", directory / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files
