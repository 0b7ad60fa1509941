"""The floors of controlplane/, from the ground up: a module imports from below, never from above.

Within a floor, a module may import those to its left. So there is no way to go round in a circle.
A package that stands here (``management``) is thin and stands for all of its modules. Of another
one, each module has its own place: ``signin`` is services and pages. A new module has to be given
its place in this table.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

FLOORS = (
    # 0: the ground: errors, settings, keys, threads
    (
        "exceptions",
        "closecodes",
        "destinations",
        "conf",
        "logs",
        "metrics",
        "outages",
        "background",
        "memory",
        "crypto",
        "dbthreads",
        "storage",
        "proxies",
        "requestids",
        "ratelimits",
    ),
    # 1: the data plane, without Django
    (
        *("rfb.messages", "rfb.encodings", "rfb.auth", "rfb.handshake"),
        "rfb.framebuffer",
        *(
            "wakeup",
            "connecting",
            "gate",
            "upstream",
            "backlog",
            "inputqueue",
            "bridge",
            "signsoflife",
            "trials",
            "webhooks.posting",
        ),
    ),
    # 2: the tables
    ("fields", "models", "migrations", "statements"),
    # 3: the services: who may do what, leases, tokens, what they tell each other
    (
        *("webhooks.outbox", "events", "notices", "access", "apitokens"),
        *("signin.failures", "backends", "proxyusers", "providerusers"),
        *("signin.steps", "signin.proxy", "signin.provider", "signin.secondfactor"),
        *("links", "leasestate", "leases", "streamrows"),
        *("leaseviews", "presenters", "tokens"),
        *("handovers", "driving", "verdicts", "desktops", "sweeping", "watch"),
        "screenshots",
        *("polling", "feed.tail", "feed.reader", "feed.eventstreams", "waiting"),
        *("webhooks.adding", "webhooks.deliveries", "webhooks.worker"),
        *("housekeeping", "readiness", "eventlog", "scraping"),
        *("workspaces.configuring", "workspaces.files", "workspaces.sync"),
        "workspaces.registration",
    ),
    # 4: HTTP and websockets in
    (
        *("middleware", "origins", "longpoll", "schemas", "api", "views"),
        *("signin.pages", "signin.secondfactorpages"),
        *("displaysocket", "admissions", "authority", "streams", "consumers"),
    ),
    # 5: thin: parse, call a service, print
    ("admin", "urls", "routing", "management", "checks", "signals", "apps"),
)
DATA_PLANE = FLOORS[1]
NO_DJANGO = {"django", "channels", "ninja"}
NO_IO = {"asyncio", "socket", "ssl", "select", "selectors", "subprocess", "threading", "time"}

APP = "controlplane"
DIRECTORY = Path(__file__).resolve().parents[2] / APP
ORDER = [name for floor in FLOORS for name in floor]


def name_of(path: Path) -> str:
    """``controlplane/rfb/auth.py`` is ``rfb.auth``; the package itself is its directory."""
    parts = path.relative_to(DIRECTORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path for path in DIRECTORY.rglob("*.py") if name_of(path)}


@cache
def imports_of(module: str) -> tuple[str, ...]:
    """Return the full name of everything that a module imports, wherever in its text."""
    return tuple(_imports_of(module))


def _imports_of(module: str) -> Iterator[str]:
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = base_of(module, node)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def base_of(module: str, node: ast.ImportFrom) -> str:
    """Return the absolute name behind ``from`` (relative imports climb ``level`` packages)."""
    if not node.level:
        return node.module or ""
    package = [APP, *module.split(".")]
    climb = node.level - (SOURCES[module].name == "__init__.py")
    return ".".join([*package[: len(package) - climb], *filter(None, [node.module])])


def ours(imported: str) -> str | None:
    """Return which of our modules an import reaches, if any: ``rfb.auth`` for one of its names."""
    parts = imported.split(".")
    if parts[0] != APP:
        return None
    candidates = (".".join(parts[1:end]) for end in range(len(parts), 1, -1))
    return next((name for name in candidates if name in SOURCES), None)


@cache
def neighbours(module: str) -> set[str]:
    return {name for name in map(ours, imports_of(module)) if name and name != module}


def entry_of(module: str) -> str | None:
    """Return the entry of the table that a module belongs to."""
    matches = (name for name in ORDER if module == name or module.startswith(f"{name}."))
    return next(matches, None)


def is_listed(module: str) -> bool:
    is_bare_package = SOURCES[module].name == "__init__.py" and not neighbours(module)
    return is_bare_package or entry_of(module) is not None


def place_of(module: str) -> int:
    entry = entry_of(module)
    return -1 if entry is None else ORDER.index(entry)


def reachable_from(module: str) -> set[str]:
    """Return the module and all of ours that it imports, directly or not."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(neighbours(current))
    return seen


def test_every_module_has_its_place_in_the_table() -> None:
    assert [module for module in sorted(SOURCES) if not is_listed(module)] == []


def test_the_table_lists_nothing_twice_and_nothing_that_is_gone() -> None:
    assert len(ORDER) == len(set(ORDER))
    assert [name for name in ORDER if name not in SOURCES] == []


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_a_module_imports_only_from_below_or_from_its_left(module: str) -> None:
    upward = {
        name
        for name in neighbours(module)
        if place_of(name) > place_of(module)
        or (place_of(name) == place_of(module) and module in reachable_from(name))
    }
    assert upward == set(), f"{module} imports {', '.join(sorted(upward))}"


@pytest.mark.parametrize("module", DATA_PLANE)
def test_the_data_plane_reaches_no_django(module: str) -> None:
    reached = {name: set(imports_of(name)) for name in reachable_from(module)}
    roots = {name: {each.split(".")[0] for each in found} for name, found in reached.items()}
    assert {name: found & NO_DJANGO for name, found in roots.items() if found & NO_DJANGO} == {}


@pytest.mark.parametrize("module", [name for name in DATA_PLANE if name.startswith("rfb.")])
def test_rfb_takes_bytes_and_does_no_input_or_output(module: str) -> None:
    assert {each.split(".")[0] for each in imports_of(module)} & NO_IO == set()


def test_the_app_does_not_know_the_project_around_it() -> None:
    knowing = [
        module
        for module in SOURCES
        if any(each.split(".")[0] == "desktopctl" for each in imports_of(module))
    ]
    assert knowing == []
