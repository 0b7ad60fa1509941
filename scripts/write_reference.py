"""Writes docs/reference/ from the code: settings, management commands, API.

    .venv/bin/python scripts/write_reference.py

What a setting means is said once, in README.md; who may call what, in docs/permissions.md. A test
(tests/unit/test_reference.py) fails where these pages are no longer what this program writes.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import django

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
COMMAND = ".venv/bin/python scripts/write_reference.py"
NOTE = f"<!-- Written by {COMMAND}; change the code, or what it is made from, and run that. -->"

SCOPES = ("observe", "control", "manage")
ROLES = ("stranger", "observer", "operator", "manager", "superuser")


def write() -> None:
    """Write every page."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return the text of each page, by its name; Django has to be set up."""
    made = {"settings.md": settings_page, "commands.md": commands_page, "api.md": api_page}
    return {name: "\n".join([*make(), ""]) for name, make in made.items()}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    titles = list(head)
    yield _row(titles)
    yield _row(["---"] * len(titles))
    yield from (_row(row) for row in rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


# --- Settings -------------------------------------------------------------------------------------
def settings_page() -> Iterator[str]:
    """Yield the lines of settings.md."""
    from controlplane import conf  # noqa: PLC0415  (Django has to be set up first)

    kinds = kinds_of_settings()
    rows = [(f"`{name}`", default, kinds[name], what) for name, default, what in readme_rows()]
    server = [row for row in rows if not row[0].startswith("`DISPLAY_")]
    displays = [row for row in rows if row[0].startswith("`DISPLAY_")]
    yield SETTINGS
    yield from table(HEAD, server)
    yield DISPLAYS
    yield from table(HEAD, displays)
    yield RELATIONS.format(shortest=conf.MIN_LEASE_SECONDS, longest=conf.MAX_LEASE_SECONDS)


SETTINGS = f"""\
# Settings

{NOTE}

All come from the environment, and each from a file as well: `NAME_FILE` names one whose content
counts instead of `NAME`. A bad value stops the start with a message that names the setting. All
nodes have the same settings.

## The server"""
DISPLAYS = """
## Control and displays
Numbers are greater than 0; seconds may have a fraction, what is counted may not. What is set to
nothing has its default.
"""
RELATIONS = """
- `DISPLAY_LEASE_SECONDS` is at most {longest}. Who takes control may ask for another time, from
  {shortest} s (or a shorter `DISPLAY_LEASE_SECONDS`) to {longest} s.
- `DISPLAY_FENCE_SECONDS` is longer than `DISPLAY_WATCH_SECONDS`. A node with a shorter fence than
  another's would not wait until that one's gates have shut.
- `DISPLAY_BACKLOG_CAP_BYTES` is larger than `DISPLAY_BACKLOG_BYTES`."""
HEAD = ("name", "default", "unit or form", "meaning")


def readme_rows() -> list[tuple[str, str, str]]:
    """Return name, default and meaning of each; test_docs.py holds the first two to the code."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Settings")[2]
    found = re.findall(r"^\| `(\w+)` \| *(.*?) *\| (.*) \|$", section, re.MULTILINE)
    # Links there begin at the root, here in docs/reference.
    return [(name, default, what.replace("](docs/", "](../")) for name, default, what in found]


def kinds_of_settings() -> dict[str, str]:
    """Return the unit or the form of each setting, by how the code reads it."""
    from controlplane.conf import DisplaySettings  # noqa: PLC0415

    tree = ast.parse((ROOT / "desktopctl" / "settings.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if _reads_environment(node)]
    kinds = {_name_read(call): _form(_name_read(call), call.func.attr) for call in calls}  # type: ignore[attr-defined]
    for field in fields(DisplaySettings):
        name = f"DISPLAY_{field.name.upper()}"
        kinds[name] = _form(name, str(field.type))
    return kinds


def _reads_environment(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="env")), args=[ast.Constant(), *_]):
            return True
    return False


def _name_read(call: Any) -> str:
    return str(call.args[0].value)


def _form(name: str, kind: str) -> str:
    endings = {"_SECONDS": "seconds", "_BYTES": "bytes", "_URL": "address"}
    for ending, unit in endings.items():
        if name.endswith(ending):
            return unit
    if name.startswith("API_RATE_"):
        return "calls/time"
    forms = {"list": "list", "Destinations": "list", "bool": "on or off", "int": "number"}
    forms |= {"path": "path", "Path | None": "path"}
    return forms.get(kind, "text")


# --- Commands -------------------------------------------------------------------------------------
def commands_page() -> Iterator[str]:
    """Yield the lines of commands.md."""
    yield COMMANDS
    for name, command in commands():
        parser = command.create_parser("manage.py", name)
        yield from ("", f"## {name}", command.help)
        rows = [_describe(action) for action in _own_actions(parser)]
        if rows:
            yield ""
            yield from table(("argument", "default", "meaning"), rows)


COMMANDS = f"""\
# Commands

{NOTE}

`.venv/bin/python manage.py COMMAND`, in the server's environment: the same `SECRET_KEY` and
`DATABASE_URL` ([settings](settings.md)); after `make run`, `SECRET_KEY_FILE=var/secret_key`. A
command that fails says why on standard error, and its exit code is not 0. Django's own are there as
well (`migrate`, `createsuperuser`, `changepassword`, `check --deploy`, …). Each has `--help`."""


def commands() -> Iterator[tuple[str, Any]]:
    """Yield the app's own commands by name."""
    from django.core.management import load_command_class  # noqa: PLC0415

    directory = ROOT / "controlplane" / "management" / "commands"
    for path in sorted(directory.glob("[a-z]*.py")):
        yield path.stem, load_command_class("controlplane", path.stem)


def _own_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return what the command itself declares: not what every command of Django has."""
    from django.core.management import BaseCommand  # noqa: PLC0415

    usual = {action.dest for action in BaseCommand().create_parser("", "")._actions}
    return [action for action in parser._actions if action.dest not in usual]


def _describe(action: argparse.Action) -> tuple[str, str, str]:
    return f"`{_usage(action)}`", _default(action), action.help or ""


def _usage(action: argparse.Action) -> str:
    if action.option_strings and action.nargs == 0:
        return action.option_strings[-1]
    choices = "|".join(map(str, action.choices)) if action.choices else ""
    value = choices or str(action.metavar or action.dest.upper())
    if action.option_strings:
        value = f"{action.option_strings[-1]} {value}"
    return f"{value}…" if action.nargs in {"*", "+"} else value


def _default(action: argparse.Action) -> str:
    if action.required and action.nargs != "*":
        return "required"
    return f"`{action.default}`" if action.default else ""


# --- API ------------------------------------------------------------------------------------------
API = f"""\
# API

{NOTE}

A running server tells more: `/api/docs` for people, `/api/openapi.json` for programs, with the type
of each field. JSON both ways; a session's cookie with the CSRF token, or
`Authorization: Bearer <API token>`.

*People* names the least role that may make a call, *tokens* the scopes;
[permissions.md](../permissions.md) has every case, and what else opens a call. What has a ? may be
left out. Besides what is listed, each call may be answered 400, 401, 403, 404, 429 or 503:
`{{"error": {{"code": "…", "message": "…"}}}}`, 429 and 503 with `Retry-After`. A 409 has `current`
as well, the control as it is."""
USUAL_FAILURES = {400, 401, 403, 404, 429, 503}


def api_page() -> Iterator[str]:
    """Yield the lines of api.md."""
    from controlplane.api import api  # noqa: PLC0415

    document = api.get_openapi_schema(path_prefix="/api/")
    schemas = document["components"]["schemas"]
    permitted = permissions()
    told: dict[str, None] = {}  # the answers' schemas, in the order in which they come up
    yield API
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            route = f"{method.upper()} {path}"
            words = call["description"].replace("``", "`").splitlines()
            yield from ("", f"## {route}", *words, "", *_facts(schemas, call, permitted[route]))
            answers = [_schema(answer) for _, answer in sorted(call["responses"].items())]
            told |= dict.fromkeys(filter(None, answers))
    yield from ("", "## Answers")
    for name in told:
        yield f"- {name}: {_fields(schemas[name])}"


def _facts(schemas: Any, call: Any, who: tuple[str, str]) -> Iterator[str]:
    people, tokens = who
    yield f"- people: {people}; tokens: {tokens}"
    asked = [_parameter(each) for each in call.get("parameters", []) if each["in"] != "path"]
    if asked:
        yield f"- parameters: {', '.join(asked)}"
    body = _schema(call.get("requestBody", {}))
    if body:
        yield f"- body: {_fields(schemas[body])}"
    yield f"- answers: {', '.join(_answers(call['responses']))}"


def _parameter(parameter: Any) -> str:
    name, is_header = parameter["name"], parameter["in"] == "header"
    if is_header and "_" in name:  # as it is sent
        name = name.replace("_", "-").title()
    return f"`{name}`{'' if parameter['required'] else '?'}{' (header)' if is_header else ''}"


def _schema(message: Any) -> str:
    """Return the name of the schema of a body or an answer in JSON, or nothing."""
    schema = message.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _fields(schema: Any) -> str:
    required = schema.get("required", [])
    return ", ".join(
        f"`{name}`{'' if name in required else '?'}" for name in schema.get("properties", {})
    )


def _answers(responses: Any) -> Iterator[str]:
    for status, response in sorted(responses.items()):
        what = _schema(response) or " or ".join(response.get("content", {}))
        if status < 300:
            yield f"{status} {what}".strip()
        elif status not in USUAL_FAILURES:
            yield str(status)


def permissions() -> dict[str, tuple[str, str]]:
    """Return the least role and the scopes that docs/permissions.md lets call each route."""
    text = (ROOT / "docs" / "permissions.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"\| (call|`)", line)]
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found: dict[str, tuple[str, str]] = {}
    for call, *statuses in rows:
        route = call.partition("` ")[0].strip("`")
        may = {who for who, status in zip(head[1:], statuses, strict=True) if status[0] == "2"}
        # The first row of a route is the plain case.
        found.setdefault(route, (_least_role(may), _scopes(may)))
    return found


def _least_role(may: set[str]) -> str:
    least = next((role for role in ROLES if role in may), "–")
    return "anybody who is signed in" if least == "stranger" else least


def _scopes(may: set[str]) -> str:
    scopes = [scope for scope in SCOPES if f"token {scope}" in may]
    return "any" if scopes == [*SCOPES] else ", ".join(scopes) or "–"


def main() -> None:
    """Write the pages, whatever settings this shell has."""
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desktopctl.settings")
    os.environ.setdefault("SECRET_KEY", "nothing is signed here")
    django.setup()
    write()


if __name__ == "__main__":
    main()
