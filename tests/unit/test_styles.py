"""The style sheet: colours and spaces are said once, as custom properties."""

from __future__ import annotations

import re

from tests.support.processes import ROOT

SHEET = (ROOT / "static/controlplane/style.css").read_text()
RULES = re.sub(r"/\*.*?\*/", "", SHEET, flags=re.DOTALL)
DECLARATIONS = re.findall(r"^\s+([\w-]+):\s*([^;]+);", RULES, re.MULTILINE)
PLAIN = [(name, value) for name, value in DECLARATIONS if not name.startswith("--")]

SELECTORS = re.findall(r"([^{};]+)\{", RULES)
NAMES = re.compile(r"[.#]([a-z][\w-]*)|\[([a-z-]+)(?:=\"([\w-]+)\")?\]")
PAGES = "\n".join(
    path.read_text()
    for directory, pattern in (("templates", "*.html"), ("static/controlplane", "*.js"))
    for path in sorted((ROOT / directory).rglob(pattern))
)

COLOUR = re.compile(r"#[0-9a-f]{3,8}\b|\b(rgb|hsl|oklch|color-mix)\(", re.IGNORECASE)
SPACE = re.compile(r"(margin|padding|gap)\b")
LENGTH = re.compile(r"\d(rem|px)\b")


def test_each_colour_comes_from_a_custom_property() -> None:
    assert [(name, value) for name, value in PLAIN if COLOUR.search(value)] == []


def test_each_space_comes_from_a_custom_property() -> None:
    spaces = [(name, value) for name, value in PLAIN if SPACE.match(name)]
    assert len(spaces) > 50
    assert [(name, value) for name, value in spaces if LENGTH.search(value)] == []


def test_each_custom_property_is_defined_and_used() -> None:
    defined = {name for name, _ in DECLARATIONS if name.startswith("--")}
    assert set(re.findall(r"var\((--[\w-]+)", RULES)) == defined


def words_of_pages() -> set[str]:
    """The words in templates and scripts; `dataset.someName` is the attribute `data-some-name`."""
    kept = re.findall(r"dataset\.(\w+)", PAGES)
    attributes = {"data-" + re.sub("[A-Z]", lambda m: f"-{m[0].lower()}", each) for each in kept}
    return attributes.union(re.findall(r"[\w-]+", PAGES))


def test_each_class_id_and_attribute_of_a_selector_is_on_some_page() -> None:
    named = {name for each in SELECTORS for found in NAMES.findall(each) for name in found if name}
    assert len(named) > 80
    assert named - words_of_pages() == set()
