"""The path of docs/deploy.md: its sections, and the shell script that they are."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from tests.support.processes import ROOT

DOCUMENT = "docs/deploy.md"
CHAPTER, UPGRADE = "With systemd and nginx", "Rolling upgrades"
NAME = "desks.test"  # of the newcomer's server
PASSWORD = "seven ducks on the pond"  # of everybody there


@dataclass(frozen=True)
class Section:
    """A step of the path: what stands in its blocks, in order."""

    title: str
    blocks: list[str]
    says_browser: bool


def sections(*, upgrade: bool = False) -> list[Section]:
    """Return all of them; the first is what stands before "1.", the last may be the upgrade."""
    first, *rest = re.split(r"^### \d+\. ", _chapter(CHAPTER), flags=re.MULTILINE)
    found = [_section(CHAPTER, first), *(_section(*each.split("\n", 1)) for each in rest)]
    with_systemd = _chapter(UPGRADE).partition("\nWith systemd:\n")[2].partition("\nWith ")[0]
    return [*found, _section(UPGRADE, with_systemd)] if upgrade else found


def _chapter(title: str) -> str:
    text = (ROOT / DOCUMENT).read_text()
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _section(title: str, text: str) -> Section:
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return Section(title, blocks, "In the browser:" in text)


def script(
    steps: list[Section], yours: dict[str, str], before: dict[str, str], browser: list[str]
) -> str:
    """Return what a newcomer types.

    ``yours`` is what the document leaves to be filled in, ``before`` what comes before a line.
    What is done in the browser is done by the function ``browser`` before the section's blocks.
    """
    lines = []
    for section in steps:
        lines.append(f"step {shlex.quote(section.title)}")
        if section.says_browser:
            assert section.title in browser, f"nobody knows how to {section.title!r}"
            lines.append(f"browser {shlex.quote(section.title)}")
        lines += section.blocks
    text = "\n".join(lines)
    for name, value in yours.items():
        text, count = re.subn(rf"^{name}=\S+", f"{name}={shlex.quote(value)}", text, flags=re.M)
        assert count == 1, f"{name}= stands in one line"
    for line, command in before.items():
        assert text.count(f"\n{line}\n") == 1, line
        text = text.replace(f"\n{line}\n", f"\n{command}\n{line}\n")
    return text
