"""What our systemd units say, as far as tests ask."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tests.support.processes import ROOT

INSTALLED = "/opt/desktopctl/"


class Unit:
    """A unit file: the values of each key, in order."""

    def __init__(self, path: str) -> None:
        text = (ROOT / path).read_text()
        without_comments = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
        self._values: dict[str, list[str]] = defaultdict(list)
        for line in without_comments.replace("\\\n", " ").splitlines():
            key, is_setting, value = line.partition("=")
            if is_setting:
                self._values[key].append(value.strip())

    def __getitem__(self, key: str) -> str:
        [value] = self._values[key]
        return value

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def after(self, key: str) -> list[tuple[str, list[str]]]:
        """Return all settings from the first ``key`` on, in order."""
        keys = list(self._values)
        return [(each, self._values[each]) for each in keys[keys.index(key) :]]

    @property
    def environment(self) -> dict[str, str]:
        """What Environment= sets."""
        return assignments(self["Environment"])

    @property
    def argv(self) -> list[str]:
        """The words of ExecStart=, before anything is filled in; the program in our own tree."""
        words = shlex.split(self["ExecStart"])
        return [word.replace(INSTALLED, f"{ROOT}/") for word in words]

    def command(self, environment: dict[str, str], specifiers: dict[str, str]) -> list[str]:
        """Return what systemd would run."""
        return filled(self.argv, environment, specifiers)


def filled(
    words: list[str], environment: Mapping[str, str], specifiers: Mapping[str, str]
) -> list[str]:
    """Return the words of a command as systemd fills them in: ``${NAME}`` stays one word."""
    words = [re.sub(r"\$\{(\w+)\}", lambda m: environment[m[1]], word) for word in words]
    return [re.sub(r"%(\w)", lambda m: specifiers[m[1]], word) for word in words]


def assignments(text: str) -> dict[str, str]:
    """Return the NAME=VALUE of an Environment= line or an environment file."""
    words = (word.partition("=") for word in shlex.split(text, comments=True))
    return {name: value for name, _, value in words}


def example(path: str) -> dict[str, str]:
    """Return what an example of an environment file sets."""
    return assignments(Path(ROOT / path).read_text())
