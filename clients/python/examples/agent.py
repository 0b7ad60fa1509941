"""An agent that types lines on a desktop, and makes way for people. Read it, copy it, change it.

    export DESKTOPCTL_TOKEN=…      # add_token robot --scope observe control --workspace desk-1
    python agent.py http://localhost:8000 desk-1 --display :1 --xauthority FILE --lines FILE

It looks at the desktop (a screenshot) before it begins and after every interruption, types a few
characters at a time with xdotool, and asks before each few whether it still has control. When a
person takes over it stops, waits until the desktop is handed back, looks anew, and begins again
with the line in which it was interrupted. ``--ask "captcha"`` asks for a person first.

What is fenced, and what is not: input that comes through desktopctl passes only while its sender
has control; the server sees to that. xdotool does not come through desktopctl: it runs on the
desktop itself, where nothing holds it back. This program is only *told* that it has lost control,
and stops because it is written so: before the next few characters, within a second. Without word
from the server it stops when its lease ends. A program that must not be trusted with that belongs
on the far side of the display's websocket, without an account on the desktop.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from desktopctl_client import (
    Client,
    Control,
    ControlLost,
    Desktop,
    DesktopctlError,
    HandedBack,
    Refused,
)

TAKEN_MEANWHILE = {"human_in_control", "hidden", "parked", "held", "closed"}


class Keyboard:
    """The desktop's keyboard, by xdotool: keys go where the focus is."""

    def __init__(self, display: str, xauthority: str | None) -> None:
        self._environment = {**os.environ, "DISPLAY": display}
        if xauthority:
            self._environment["XAUTHORITY"] = xauthority

    def type(self, text: str) -> None:
        """Type text; a line's end is Enter."""
        self._run("type", "--delay", "20", "--", text)

    def clear_line(self) -> None:
        """Remove what has been typed of a line, where the desktop shows a shell."""
        self._run("key", "ctrl+u")

    def _run(self, *arguments: str) -> None:
        subprocess.run(["xdotool", *arguments], env=self._environment, check=True, timeout=10)


class Agent:
    """Types lines, in as many turns as people leave it."""

    def __init__(self, desktop: Desktop, keyboard: Keyboard, options: argparse.Namespace) -> None:
        self._desktop = desktop
        self._keyboard = keyboard
        self._pictures: Path | None = options.pictures
        self._chunk: int = options.chunk
        self._ask: str | None = options.ask
        self._lines: list[str] = options.lines.read_text().splitlines()
        self._patience: float = options.patience
        self._is_blind: bool = options.blind
        self._looks = 0
        self._was_interrupted = False

    def run(self) -> None:
        """Type until all is typed."""
        while self._lines:
            state = self._desktop.wait_until_free()
            if self._was_interrupted:
                tell_what_came_back(state.handed_back)
            try:
                self._take_a_turn()
            except ControlLost as lost:
                self._was_interrupted = True
                say(f"stopped: {lost}")
            except Refused as refusal:
                if refusal.code not in TAKEN_MEANWHILE:
                    raise
                self._was_interrupted = True
                say(f"not yet: {refusal.message}")

    def _take_a_turn(self) -> None:
        with self._desktop.control() as control:
            say(f"in control, epoch {control.epoch}")
            self._look()
            if self._ask:
                self._ask_for_a_person(control, self._ask)
            if self._was_interrupted:
                control.check()
                self._keyboard.clear_line()
            while self._lines:
                for piece in pieces(self._lines[0] + "\n", self._chunk):
                    control.check()
                    self._keyboard.type(piece)
                del self._lines[0]

    def _look(self) -> None:
        if self._is_blind:
            return
        picture = self._desktop.screenshot()
        self._looks += 1
        say(f"looked: {picture.width}x{picture.height} in epoch {picture.epoch}")
        if self._pictures:
            (self._pictures / f"look-{self._looks}.png").write_bytes(picture.data)

    def _ask_for_a_person(self, control: Control, reason: str) -> None:
        """Ask once. Whoever takes over to help ends this turn; the next begins with a look."""
        self._ask = None
        control.request_human(reason)
        say(f"asked for a person: {reason}")
        control.sleep(self._patience)
        self._desktop.withdraw()
        say("nobody came; going on without help")


def pieces(text: str, size: int) -> Iterator[str]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


def tell_what_came_back(handed_back: HandedBack | None) -> None:
    if handed_back is None:
        say("free again, without a word")
        return
    by = handed_back.by or "somebody"
    say(f"handed back by {by}, {handed_back.outcome}: {handed_back.note}")


def say(what: str) -> None:
    print(what, flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Type lines on a desktop; make way for people.")
    parser.add_argument("server", help="https://host of desktopctl")
    parser.add_argument("workspace", help="the workspace's id")
    parser.add_argument("--display", required=True, help="of the desktop, such as :1")
    parser.add_argument("--xauthority", help="the file that lets programs onto it")
    parser.add_argument("--lines", type=Path, required=True, help="a file with what to type")
    parser.add_argument("--pictures", type=Path, help="a directory for what it looked at")
    parser.add_argument("--blind", action="store_true", help="look at nothing")
    parser.add_argument("--ask", metavar="REASON", help="ask for a person before typing")
    parser.add_argument("--patience", type=float, default=300, help="seconds to wait for one")
    parser.add_argument("--chunk", type=int, default=5, help="how many characters between checks")
    return parser.parse_args()


def main() -> int:
    given = options()
    token = os.environ.get("DESKTOPCTL_TOKEN")
    if not token:
        print("DESKTOPCTL_TOKEN: set it to an API token", file=sys.stderr)
        return 2
    keyboard = Keyboard(given.display, given.xauthority)
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever stops it: control is released
        signal.signal(number, signal.default_int_handler)
    try:
        with Client(given.server, token) as client:
            Agent(client.desktop(given.workspace), keyboard, given).run()
    except DesktopctlError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
