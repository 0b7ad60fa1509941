"""The path of docs/deploy.md: its sections, and the shell script that they are."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from tests.support.processes import ROOT

DOCUMENT = "docs/deploy.md"
CHAPTER = "With systemd and nginx"
NAME = "desks.test"  # of the newcomer's server
PASSWORD = "seven ducks on the pond"  # of everybody there


@dataclass(frozen=True)
class Section:
    """A step of the path: what stands in its blocks, in order."""

    title: str
    blocks: list[str]
    says_browser: bool


def sections() -> list[Section]:
    """Return all of them; the first is what stands before "1."."""
    text = (ROOT / DOCUMENT).read_text()
    chapter = text.partition(f"\n## {CHAPTER}\n")[2].partition("\n## ")[0]
    first, *rest = re.split(r"^### \d+\. ", chapter, flags=re.MULTILINE)
    return [_section(CHAPTER, first), *(_section(*each.split("\n", 1)) for each in rest)]


def _section(title: str, text: str) -> Section:
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return Section(title, blocks, "In the browser:" in text)


def script(yours: dict[str, str], before: dict[str, str], browser: list[str]) -> str:
    """Return what a newcomer types.

    ``yours`` is what the document leaves to be filled in, ``before`` what comes before a line.
    What is done in the browser is done by the function ``browser`` before the section's blocks.
    """
    steps = []
    for section in sections():
        steps.append(f"step {shlex.quote(section.title)}")
        if section.says_browser:
            assert section.title in browser, f"nobody knows how to {section.title!r}"
            steps.append(f"browser {shlex.quote(section.title)}")
        steps += section.blocks
    text = "\n".join(steps)
    for name, value in yours.items():
        text, count = re.subn(rf"^{name}=\S+", f"{name}={shlex.quote(value)}", text, flags=re.M)
        assert count == 1, f"{name}= stands in one line"
    for line, command in before.items():
        assert text.count(f"\n{line}\n") == 1, line
        text = text.replace(f"\n{line}\n", f"\n{command}\n{line}\n")
    return text
