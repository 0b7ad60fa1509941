"""Says what is held down on an X display.

Xlib through ctypes, for libX11 comes with every X program; and in a process of its own (this
module, run as a program), for Xlib ends its process when the X server goes away.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests.support.processes import ROOT
from tests.support.timing import limit

_BUTTON_1_MASK = 1 << 8


def held_on(environment: Mapping[str, str]) -> dict[str, list[Any]]:
    """Return ``{"keys": [names], "buttons": [numbers]}`` of the display in ``environment``."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.x11_state"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        timeout=limit(2),
        check=True,
    )
    return dict(json.loads(done.stdout))


def main() -> int:
    """Print the same of $DISPLAY, as JSON."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XkbKeycodeToKeysym.restype = ctypes.c_ulong
    x11.XDefaultRootWindow.restype = ctypes.c_ulong
    x11.XKeysymToString.restype = ctypes.c_char_p
    x11.XKeysymToString.argtypes = [ctypes.c_ulong]
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    if display.value is None:
        print("cannot open the X display", file=sys.stderr)  # noqa: T201  (a program's output)
        return 1
    state = {"keys": _keys(x11, display), "buttons": _buttons(x11, display)}
    print(json.dumps(state))  # noqa: T201
    return 0


def _keys(x11: ctypes.CDLL, display: ctypes.c_void_p) -> list[str]:
    bits = ctypes.create_string_buffer(32)
    x11.XQueryKeymap(display, bits)
    codes = [code for code in range(256) if bits.raw[code // 8] >> (code % 8) & 1]
    return [_name(x11, display, code) for code in codes]


def _name(x11: ctypes.CDLL, display: ctypes.c_void_p, code: int) -> str:
    name = x11.XKeysymToString(x11.XkbKeycodeToKeysym(display, code, 0, 0))
    return name.decode() if name else f"keycode {code}"


def _buttons(x11: ctypes.CDLL, display: ctypes.c_void_p) -> list[int]:
    windows = [ctypes.c_ulong() for _ in range(2)]
    positions = [ctypes.c_int() for _ in range(4)]
    mask = ctypes.c_uint()
    root = ctypes.c_ulong(x11.XDefaultRootWindow(display))
    answers = [ctypes.byref(each) for each in (*windows, *positions, mask)]
    x11.XQueryPointer(display, root, *answers)
    return [number + 1 for number in range(5) if mask.value & _BUTTON_1_MASK << number]


if __name__ == "__main__":
    sys.exit(main())
