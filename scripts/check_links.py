"""Says which relative links in Markdown files lead nowhere: to no file, or to no heading in it.

    git ls-files -z '*.md' | .venv/bin/python scripts/check_links.py

Takes the files' names on standard input, each ended by a NUL, as check_tree gives them. Nothing is
asked over the network: links to other sites are not followed.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"^ {0,3}#{1,6} +(.+?)(?: +#+)? *$")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_INLINE = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*)?\s*\)")
_DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?([^\s>]+)")
_ID = re.compile(r"<\w+[^>]*\s(?:id|name)=[\"']([^\"']+)")
_OTHER_SITE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines that are not in a block of code."""
    fence = ""
    for number, line in enumerate(text.splitlines(), start=1):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and line.strip() == mark[1]:
            fence = ""
        elif not fence:
            yield number, line


def links(text: str) -> Iterator[tuple[int, str]]:
    """Yield what the text links to, images too, with the number of the line."""
    for number, line in prose(text):
        words = _CODE.sub("", line)
        for pattern in (_INLINE, _DEFINITION):
            yield from ((number, target) for target in pattern.findall(words))


def anchors(text: str) -> set[str]:
    """Return what can stand behind # in a link to this text: its headings, as GitHub names them."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for _, line in prose(text):
        found.update(_ID.findall(line))
        heading = _HEADING.match(line)
        if heading:
            name = anchor(heading[1])
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


def anchor(heading: str) -> str:
    """Return the name GitHub gives a heading: lower case, no punctuation, hyphens for spaces."""
    words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # a link's words only
    return re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")


def problems(files: Iterable[Path]) -> Iterator[str]:
    """Yield a line for each link that leads nowhere: file, number of the line, link."""
    for file in files:
        for number, link in links(file.read_text(encoding="utf-8")):
            problem = _problem(file, link)
            if problem:
                yield f"{file}:{number}: {link}: {problem}"


def _problem(file: Path, link: str) -> str:
    if _OTHER_SITE.match(link):
        return ""
    path, _, fragment = unquote(link).partition("#")
    target = file.parent / path if path else file
    if path.startswith("/") or not target.exists():
        return "there is no such file"
    if fragment and target.suffix == ".md" and fragment not in anchors(target.read_text("utf-8")):
        return "there is no such heading"
    return ""


def main() -> int:
    """Print what is wrong; return 1 if anything is."""
    names = sys.stdin.read().split("\0")
    found = list(problems(Path(name) for name in names if name))
    for each in found:
        print(each, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
