"""What the Dockerfile says, taken apart as far as our own one needs it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Self

from tests.support.processes import ROOT


@dataclass
class Stage:
    """One FROM and what follows it: (instruction, its arguments) in order."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """Return the arguments of every such instruction."""
        return [arguments for name, arguments in self.steps if name == instruction]

    def last(self, instruction: str) -> str:
        """Return the arguments of the one that counts."""
        return self.all(instruction)[-1]

    def argv(self, instruction: str) -> list[str]:
        """Return the words of ENTRYPOINT, CMD or HEALTHCHECK, written as a JSON list."""
        words: list[str] = json.loads(self.last(instruction)[self.last(instruction).index("[") :])
        return words

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        pairs = (word for arguments in self.all("ENV") for word in shlex.split(arguments))
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def copies(self) -> list[tuple[list[str], str]]:
        """Sources in the repository, and where they go; what comes from other stages is not."""
        words = [each.split() for each in self.all("COPY") if not each.startswith("--from=")]
        return [(sources, target) for *sources, target in words]


@dataclass
class Dockerfile:
    """Its stages, in order; the last one becomes the image."""

    stages: list[Stage]

    @classmethod
    def read(cls) -> Self:
        """Read the repository's own."""
        text = (ROOT / "Dockerfile").read_text()
        without_comments = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
        stages: list[Stage] = []
        for line in without_comments.replace("\\\n", " ").splitlines():
            name, _, arguments = line.strip().partition(" ")
            if name == "FROM":
                stages.append(Stage(arguments.split()[0]))
            elif name:
                stages[-1].steps.append((name, arguments.strip()))
        return cls(stages)
