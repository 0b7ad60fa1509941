"""What the server tells, as plain values. Fields that this version does not know are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

T = TypeVar("T")

Json = Mapping[str, Any]


@dataclass(frozen=True)
class HandedBack:
    """A person has handed back: ``outcome`` is ``done``, ``could_not`` or ``skipped``."""

    epoch: int
    outcome: str
    by: str | None
    note: str
    at: datetime


@dataclass(frozen=True)
class Help:
    """An agent asks for a person."""

    by: str | None
    reason: str
    at: datetime


@dataclass(frozen=True)
class Parked:
    """A person's control has ended without being handed back: no agent may go on yet."""

    by: str | None
    reason: str
    at: datetime


@dataclass(frozen=True)
class LastEnd:
    """How control ended the last time."""

    reason: str
    by: str | None
    note: str | None


@dataclass(frozen=True)
class Screenshot:
    """A picture, taken while ``epoch`` lasted; width and height are those of the whole desktop."""

    data: bytes
    media_type: str
    epoch: int
    width: int
    height: int


@dataclass(frozen=True)
class ControlState:
    """Who has control, as the server told it; ``this_client`` says whether it is the caller."""

    controller: str
    controlled_by: str | None
    this_client: bool
    epoch: int
    version: int
    agent: str | None
    is_closed: bool
    help: Help | None
    parked: Parked | None
    handed_back: HandedBack | None
    last_end: LastEnd | None
    expires_in: float  # seconds from the answer on; 0 while nobody has control

    @property
    def is_free(self) -> bool:
        """Whether an agent could acquire: nobody else has control, and no person is waited for."""
        if self.is_closed or self.parked:
            return False
        return self.controller == "none" or self.this_client

    @classmethod
    def of(cls, json: Json) -> ControlState:
        """Return what an answer tells; KeyError, TypeError or ValueError if it is none."""
        return cls(
            controller=json["controller"],
            controlled_by=json["controlled_by"],
            this_client=json["this_client"],
            epoch=int(json["epoch"]),
            version=int(json["version"]),
            agent=json.get("agent"),
            is_closed=json.get("closed") is not None,
            help=_part(json.get("help"), _help),
            parked=_part(json.get("parked"), _parked),
            handed_back=_part(json.get("handed_back"), _handed_back),
            last_end=_part(json.get("last_end"), _last_end),
            expires_in=_part(json["expires_at"], lambda at: _seconds(json["server_time"], at)) or 0,
        )


def _part(json: Any, make: Callable[[Any], T]) -> T | None:
    return None if json is None else make(json)


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _help(json: Json) -> Help:
    return Help(json["by"], json["reason"], datetime.fromisoformat(json["at"]))


def _parked(json: Json) -> Parked:
    return Parked(json["by"], json["reason"], datetime.fromisoformat(json["at"]))


def _handed_back(json: Json) -> HandedBack:
    at = datetime.fromisoformat(json["at"])
    return HandedBack(json["epoch"], json["outcome"], json["by"], json["note"], at)


def _last_end(json: Json) -> LastEnd:
    return LastEnd(json["reason"], json["by"], json["note"])
