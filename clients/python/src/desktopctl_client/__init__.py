"""Control of a remote desktop for agents; README.md shows how it is used."""

from desktopctl_client.client import Client, Desktop
from desktopctl_client.control import Control
from desktopctl_client.errors import (
    ControlLost,
    DesktopctlError,
    Refused,
    Unavailable,
    WaitedInVain,
)
from desktopctl_client.states import ControlState, HandedBack, Help, LastEnd, Parked, Screenshot

__all__ = [
    "Client",
    "Control",
    "ControlLost",
    "ControlState",
    "Desktop",
    "DesktopctlError",
    "HandedBack",
    "Help",
    "LastEnd",
    "Parked",
    "Refused",
    "Screenshot",
    "Unavailable",
    "WaitedInVain",
]
