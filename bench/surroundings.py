"""Where it was measured and with what; nothing that names the machine itself."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench.contenders import Site
from tests.support.processes import ROOT, program

PACKAGES = (
    *("Django", "channels", "uvicorn", "daphne", "uvloop"),
    *("websockets", "psycopg", "websockify", "numpy"),
)

NOVNC_PACKAGE = ROOT / "node_modules/@novnc/novnc/package.json"


def machine() -> dict[str, str]:
    """Return what the hardware and the kernel are."""
    memory_kib = int(first_match(r"MemTotal:\s*(\d+)", "/proc/meminfo"))
    return {
        "processor": first_match(r"model name\s*:\s*(.+)", "/proc/cpuinfo") or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_kib / 2**20:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
    }


def versions(site: Site) -> dict[str, str]:
    """Return the versions of all that took part."""
    postgres = str(site.database.rows("SHOW server_version")[0][0]).split()[0]
    return {
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "socat": version_of("socat", "-V", "socat"),
        "noVNC": str(json.loads(NOVNC_PACKAGE.read_text())["version"]),
        "Chromium": version_of("chromium", "--version", "chromium"),
        "x11vnc": version_of("x11vnc", "-version", "x11vnc"),
        "PostgreSQL": postgres,
    }


def version_of(name: str, option: str, package: str) -> str:
    """Return the first number with a dot that a program says of itself."""
    done = subprocess.run(
        [program(name, package), option], capture_output=True, text=True, check=True
    )
    found = re.search(r"\d+\.[\d.]+\d", done.stdout)
    return found[0] if found else "unknown"


def first_match(pattern: str, file: str) -> str:
    """Return the group of the pattern's first match in a file; empty where there is none."""
    found = re.search(pattern, Path(file).read_text())
    return found[1] if found else ""
