"""Links in Markdown: those that lead nowhere are found, all others are left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import check_links

ROOT = Path(__file__).resolve().parents[2]
OTHER = """# The `gate`, and what it does
## Twice
## Twice
<a id="by-hand"></a>

```sh
# no heading
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page beside docs/other.md, which it may link to."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/other.md").write_text(OTHER)
    return tmp_path / "page.md"


def found_in(page: Path, text: str) -> list[str]:
    page.write_text(text)
    return [each.removeprefix(f"{page}:") for each in check_links.problems([page])]


@pytest.mark.parametrize(
    "link",
    [
        "[a](docs/other.md)",
        "[a](docs/)",
        "[a](docs/other.md#the-gate-and-what-it-does)",
        "[a](docs/other.md#twice) and [b](docs/other.md#twice-1)",
        "[a](docs/other.md#by-hand)",
        '[a](docs/other.md "with a title")',
        "[a](https://elsewhere.example/nothing) [b](mailto:a@example.org)",
        "# Own heading\n[a](#own-heading)",
        "`[a](nothing.md)`",
        "```md\n[a](nothing.md)\n```",
        "~~~\n```\n[a](nothing.md)\n~~~",
    ],
)
def test_what_leads_somewhere_or_is_no_link_is_left_alone(link: str, page: Path) -> None:
    assert found_in(page, link) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\n[a](nothing.md)", "2: nothing.md: there is no such file"),
        ("![a](docs/nothing.png)", "1: docs/nothing.png: there is no such file"),
        ("[a](/docs/other.md)", "1: /docs/other.md: there is no such file"),
        ("[a](docs/other.md#thrice)", "1: docs/other.md#thrice: there is no such heading"),
        ("[a](docs/other.md#twice-2)", "1: docs/other.md#twice-2: there is no such heading"),
        ("[a](docs/other.md#no-heading)", "1: docs/other.md#no-heading: there is no such heading"),
        ("[a](#mine)", "1: #mine: there is no such heading"),
        ("[a]\n\n[a]: nothing.md", "3: nothing.md: there is no such file"),
        ("```\n```\n[a](nothing.md)", "3: nothing.md: there is no such file"),
    ],
)
def test_what_leads_nowhere_is_named_with_its_line(text: str, problem: str, page: Path) -> None:
    assert found_in(page, text) == [problem]


def test_lint_fails_with_what_is_wrong(page: Path) -> None:
    page.write_text("[a](nothing.md)")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/check_links.py"],
        input=f"{page}\0",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        1,
        f"{page}:1: nothing.md: there is no such file\n",
    )
