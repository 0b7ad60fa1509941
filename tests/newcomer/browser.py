"""What a newcomer does in the browser, without one: the same requests, to the same address.

Runs on the newcomer's machine. A step is called as the section of docs/deploy.md that tells it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from tests.newcomer.path import NAME, PASSWORD
from tests.support.rfb import key
from tests.support.stream_client import ApiClient, StreamClient
from tests.support.timing import wait_until

_URL = f"https://{NAME}"
_RETURN = 0xFF0D
_TYPED = Path("/home/desk-1/typed-by-alice")


def add_a_person() -> None:
    """Add alice in the admin."""
    with closing(ApiClient.by_form(_URL, "admin", PASSWORD)) as admin:
        form = {"username": "alice", "password1": PASSWORD, "password2": PASSWORD}
        added = admin.post("/admin/auth/user/add/", data=form | {"usable_password": "true"})
        added.raise_for_status_is(302)


def take_control() -> None:
    """Take control as alice, type on the desktop, and see there that it was typed."""
    with closing(ApiClient.by_form(_URL, "alice", PASSWORD)) as alice:
        assert alice.slugs() == ["desk-1"]
        watching = [alice.open("desk-1", f"watching-{number}") for number in range(2)]
        servers = {stream.text("hello")["server"] for stream in watching}
        assert len(servers) == 2, "nginx has given a display to each of the nodes"
        taken = alice.acquire("desk-1")
        assert taken["controlled_by"] == "alice"
        driving = StreamClient(taken["session_url"], origin=_URL).shake_hands().in_control()
        driving.send(*pressed(f"echo mine > {_TYPED}\n"))
        wait_until(lambda: _TYPED.exists() and _TYPED.read_text() == "mine\n", "it is typed")
        StreamClient.close_all()


def pressed(text: str) -> Iterator[bytes]:
    """Return the messages of somebody who types it."""
    for letter in text:
        keysym = _RETURN if letter == "\n" else ord(letter)
        yield key(True, keysym)
        yield key(False, keysym)


STEPS: dict[str, Callable[[], None]] = {"Add a person": add_a_person, "Take control": take_control}
"""By the title of their section."""


if __name__ == "__main__":
    STEPS[sys.argv[1]]()
