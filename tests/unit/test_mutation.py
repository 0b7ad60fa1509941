"""What ``make mutation`` makes of a source, and that its document speaks of the code as it is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.mutation.__main__ import TESTS
from tests.mutation.mutants import mutants_of

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''
LIMIT = 1 + 2


class Door:
    """What is said of it is left alone."""

    @property
    def is_open(self):
        assert self.key
        return not self.lock and self.key == 1

    def lock_up(self):
        if self.is_open:
            raise Slammed
        self.tell(
            who="me",
            why="draught",
        )
'''
ROW = re.compile(r"^\| `(.*?)` \| `(.*?)` \| `(.*?)`", re.MULTILINE)


def rows() -> set[str]:
    return {mutant.row for mutant in mutants_of(SOURCE)}


@pytest.mark.parametrize(
    "row",
    [
        "`(module)` | `LIMIT = 1 + 2` | `LIMIT = 1 - 2`",
        "`Door.is_open` | `@property` | `(nothing)`",
        "`Door.is_open` | `return not self.lock and self.key == 1` | `pass`",
        "`Door.lock_up` | `if self.is_open:` | `if not self.is_open:`",
        "`Door.lock_up` | `raise Slammed` | `pass`",
        '`Door.lock_up` | `why="draught",` | `(nothing)`',
    ],
)
def test_a_mutant_is_named_by_function_and_by_the_line_before_and_after(row: str) -> None:
    assert row in rows()


def test_what_is_said_about_the_code_is_left_alone() -> None:
    assert not [row for row in rows() if "What is said" in row]


def test_each_mutant_is_another_source_that_can_be_read() -> None:
    for mutant in mutants_of(SOURCE):
        assert mutant.source != SOURCE
        ast.parse(mutant.source)


def test_a_mutant_in_the_middle_of_a_call_concerns_the_whole_statement() -> None:
    first = SOURCE.splitlines().index("        self.tell(") + 1
    (lines,) = {mutant.lines for mutant in mutants_of(SOURCE) if mutant.before.startswith("why=")}
    assert lines == set(range(first, first + 4))


def named() -> list[tuple[str, str]]:
    text = (ROOT / "docs/mutation.md").read_text(encoding="utf-8").replace("\\|", "|")
    return [(function, before) for function, before, _ in ROW.findall(text)]


def test_what_is_named_as_equivalent_is_in_the_code() -> None:
    code = ""
    for name in TESTS:
        text = (ROOT / f"controlplane/{name.replace('.', '/')}.py").read_text(encoding="utf-8")
        code += " ".join(line.strip() for line in text.splitlines())
    assert named()
    assert [before for _, before in named() if before not in code] == []
