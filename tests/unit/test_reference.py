"""docs/reference is what scripts/write_reference.py makes of the code as it is."""

from __future__ import annotations

import pytest

from scripts import write_reference


@pytest.mark.parametrize("name", ["settings.md", "commands.md", "api.md"])
def test_a_page_of_the_reference_is_what_the_code_says(name: str) -> None:
    written = (write_reference.REFERENCE / name).read_text()
    is_fresh = written == write_reference.pages()[name]
    assert is_fresh, f"docs/reference/{name} is stale. Run: {write_reference.COMMAND}"


def test_there_are_no_other_pages() -> None:
    names = {path.name for path in write_reference.REFERENCE.iterdir()}
    assert names == write_reference.pages().keys()
