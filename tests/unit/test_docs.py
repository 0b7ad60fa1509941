"""The documents name things that exist: tests, settings, commands."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from controlplane.conf import DisplaySettings
from controlplane.destinations import ANYWHERE
from tests.support.page_states import PAGE, PICTURES, picture_of, states
from tests.unit.test_floors import neighbours

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PITFALLS = (DOCS / "pitfalls.md").read_text()
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "desktopctl/settings.py").read_text()
COMMANDS = ROOT / "controlplane/management/commands"


def names_in(pattern: str, files: str) -> set[str]:
    texts = (path.read_text() for path in (ROOT / "tests").rglob(files))
    return {name for text in texts for name in re.findall(pattern, text)}


PYTHON_TESTS = names_in(r"def (test_\w+)\(", "test_*.py")
JAVASCRIPT_TESTS = names_in(r'test\("([^"]+)"', "*.test.js")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PITFALLS))))
def test_a_test_that_keeps_a_pitfall_away_exists(name: str) -> None:
    assert name in PYTHON_TESTS


@pytest.mark.parametrize("name", sorted(set(re.findall(r"“([^”]+)”(?=[,:| ])", PITFALLS))))
def test_a_script_test_that_keeps_a_pitfall_away_exists(name: str) -> None:
    said_by_the_page = {"Reconnecting…", "live", "Take control", "Later"}
    assert name in JAVASCRIPT_TESTS | said_by_the_page


def test_all_pitfalls_have_their_row() -> None:
    assert re.findall(r"^\| (\d+) \|", PITFALLS, re.MULTILINE) == [str(n) for n in range(1, 40)]


def defaults_in_readme() -> dict[str, str]:
    section = README.partition("## Settings")[2].partition("## Commands")[0]
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", section, re.MULTILINE)
    return {name: default.strip() for name, default in rows}


def test_the_readme_lists_every_display_setting_with_its_default() -> None:
    shown = {name: text for name, text in defaults_in_readme().items() if "DISPLAY_" in name}
    real = {
        f"DISPLAY_{each.name.upper()}": ""
        if each.default in {None, ANYWHERE}
        else str(each.default)
        for each in fields(DisplaySettings)
    }
    assert shown == real


def test_the_readme_lists_every_other_setting() -> None:
    read = set(re.findall(r'env\.\w+\(\s*"(\w+)"', SETTINGS))
    assert {name for name in defaults_in_readme() if "DISPLAY_" not in name} == read


def test_the_readme_tells_the_defaults_of_the_others_too() -> None:
    written = re.findall(r'env\.\w+\(\s*"(\w+)", ("[^"]+"|\[".+?"\]|True|False)\)', SETTINGS)
    defaults = {name: ast.literal_eval(text) for name, text in written}
    assert "PUBLIC_URL" in defaults
    shown = {name: defaults_in_readme()[name].strip("`") for name in defaults}
    assert shown == {name: as_told(value) for name, value in defaults.items()}


def as_told(default: object) -> str:
    """Return a default as the README writes it."""
    if isinstance(default, bool):
        return "on" if default else "off"
    return ",".join(default) if isinstance(default, list) else str(default)


def test_the_readme_lists_every_command() -> None:
    commands = {path.stem for path in COMMANDS.glob("[a-z]*.py")}
    section = README.partition("## Commands")[2]
    assert set(re.findall(r"`(\w+)[ `]", section)) & commands == commands


EXPLANATIONS = [(DOCS / name).read_text() for name in ("how-it-works.md", "architecture.md")]
DIAGRAMS = re.findall(r"```mermaid\n(.*?)```", EXPLANATIONS[1], re.DOTALL)
# A line is a chain of nodes, with an arrow before each but the first. A solid one is an import.
ARROW = re.compile(r" (-->|-\. \"[^\"]*\" \.->) ")


def modules_named_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w/.])((?:\w+/)*\w+\.py)\b", text))


def arrows_of(diagram: str) -> Iterator[tuple[str, str, str]]:
    for line in diagram.splitlines():
        start, *rest = ARROW.split(line.strip())
        for arrow, end in zip(rest[::2], rest[1::2], strict=True):
            yield start, arrow, end
            start = end


IMPORTS = [
    (start, end)
    for diagram in DIAGRAMS
    for start, arrow, end in arrows_of(diagram)
    if arrow == "-->"
]


@pytest.mark.parametrize("name", sorted(set.union(*map(modules_named_in, EXPLANATIONS))))
def test_a_module_that_the_explanations_name_exists(name: str) -> None:
    assert (ROOT / "controlplane" / name).is_file() or (ROOT / name).is_file()


@pytest.mark.parametrize("package", ["signin", "workspaces", "feed", "webhooks"])
def test_a_package_of_one_subject_says_in_which_order_to_read_it(package: str) -> None:
    directory = ROOT / "controlplane" / package
    names = re.findall(r"``(\w+)``", (directory / "__init__.py").read_text())
    modules = [path.stem for path in directory.glob("*.py") if path.stem != "__init__"]
    assert sorted(names) == sorted(modules)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b(\w+\.js)\b", EXPLANATIONS[1]))))
def test_a_script_that_the_explanation_names_exists(name: str) -> None:
    assert (ROOT / "static/controlplane" / name).is_file()


@pytest.mark.parametrize(("start", "end"), IMPORTS)
def test_a_solid_arrow_of_the_architecture_is_an_import(start: str, end: str) -> None:
    importing, imported = (name.removesuffix(".py").replace("/", ".") for name in (start, end))
    assert imported in neighbours(importing)


def test_the_architecture_has_a_diagram_for_each_of_the_two_ways_and_all_arrows_are_read() -> None:
    assert [diagram.count("-->") > 5 for diagram in DIAGRAMS] == [True, True]
    assert len(IMPORTS) == sum(diagram.count("-->") for diagram in DIAGRAMS)


def direct_dependencies() -> set[str]:
    """The packages that are pinned because we use them."""
    texts = [path.read_text() for path in ROOT.glob("requirements*.txt")]
    python = {
        name for text in texts for name in re.findall(r"^([\w-]+)(?=[\[=])", text, re.MULTILINE)
    }
    package = json.loads((ROOT / "package.json").read_text())
    return python | package["dependencies"].keys() | package["devDependencies"].keys()


def test_each_dependency_has_its_reason_and_its_licence() -> None:
    section = (DOCS / "decisions.md").read_text().partition("\n## Dependencies\n")[2]
    first_cells = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", section, re.MULTILINE)
    named = re.findall(r"[\w@/-]+", re.sub(r"\(.*?\)", "", " ".join(first_cells)))
    assert sorted({*named} - {"package"}) == sorted(direct_dependencies())


def test_the_index_lists_every_page() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([^)#]+)\)", (DOCS / "README.md").read_text()))


def test_the_page_is_shown_in_each_of_its_states() -> None:
    shown = re.findall(r"^(.+)<br>!\[\1\]\(images/states/(.+)\)$", PAGE.read_text(), re.MULTILINE)
    assert shown == [(state, picture_of(state).name) for state in states()]


def test_each_state_has_its_picture_and_no_picture_is_left_over() -> None:
    assert set(PICTURES.iterdir()) == {picture_of(state) for state in states()}


def test_pictures_of_states_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in PICTURES.iterdir()}
    assert {name: size for name, size in sizes.items() if size > 40 * 1024} == {}
    assert sum(sizes.values()) <= 1024 * 1024
