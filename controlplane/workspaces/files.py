"""Workspaces as a file: reading one, and writing one. What it says is carried out elsewhere.

    workspaces:
      desk-1:                                  # the workspace's id
        name: Desk 1                           # what is left out has its default
        upstream_url: tcp://10.8.0.12:5901
        vnc_password_file: desk-1.password     # beside this file; left out: as it is stored
        idle_seconds: 600
        grants:                                # left out: as they are; given: these and no others
          users: {anna: operator}
          groups: {crew: observer}

A secret never stands in the file itself. Of each problem the line and the place in it are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from controlplane.exceptions import WorkspaceFileError
from controlplane.models import SECRET_FIELDS, Role, Workspace
from controlplane.workspaces import configuring

_HEADER = (
    "# Workspaces of desktopctl, for sync_workspaces and for the admin's import.\n"
    "# Secrets are not in it: those that are stored stay as they are.\n"
)
_SECRET_FILES = {f"{name}_file": name for name in SECRET_FIELDS}
_MERGE_TAG = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One workspace as the file has it. Grants that are None stay as they are."""

    slug: str
    values: Mapping[str, Any]
    users: Mapping[str, str] | None = None
    groups: Mapping[str, str] | None = None


@dataclass(slots=True)
class WorkspaceFile:
    """What has been read: the workspaces, and where in the text each part of it stands."""

    name: str
    root: yaml.Node | None
    wanted: list[Wanted] = field(default_factory=list)

    def problem(self, place: tuple[str, ...], problem: str) -> WorkspaceFileError:
        """Return the error that names the line of ``place``, or of what it is missing in."""
        line = self._node(place).start_mark.line + 1 if self.root else 1
        return WorkspaceFileError(self.name, line, ".".join(place), problem)

    def _node(self, place: tuple[str, ...]) -> yaml.Node:
        """Return the key at ``place``, as deep as it is found: that is where a person looks."""
        assert self.root is not None
        found = node = self.root
        for name in place:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            pair = next((each for each in pairs if each[0].value == name), None)
            if pair is None:
                break
            found, node = pair
        return found


def read(name: str, text: str, directory: Path | None) -> WorkspaceFile:
    """Return what the file ``name`` with this text wants.

    Secrets are read from files in ``directory``; where it is None, there may be none. Raises
    WorkspaceFileError for whatever cannot be understood.
    """
    file, content = _parse(name, text)
    top = _mapping(file, (), content, known={"workspaces"})
    if "workspaces" not in top:
        raise file.problem((), "it must begin with “workspaces:”")
    for slug, entry in _mapping(file, ("workspaces",), top["workspaces"]).items():
        file.wanted.append(_workspace(file, slug, entry, directory))
    return file


# --- YAML -----------------------------------------------------------------------------------------
def _parse(name: str, text: str) -> tuple[WorkspaceFile, Any]:
    try:
        loader = yaml.SafeLoader(text)
        file = WorkspaceFile(name, loader.get_single_node())
        if file.root is None:
            raise file.problem((), "it is empty")
        _check_keys(file)
        return file, loader.construct_document(file.root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise WorkspaceFileError(name, line, "", f"this is not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise WorkspaceFileError(name, 1, "", f"this is not YAML: {error}") from None
    except RecursionError:
        raise WorkspaceFileError(name, 1, "", "it is nested far too deeply") from None


def _check_keys(file: WorkspaceFile) -> None:
    """Refuse what YAML passes over in silence: of two equal keys, the first would be lost.

    Each node is looked at once, however often others refer to it. Merging could multiply them.
    """
    waiting, seen = [file.root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _check_mapping(file, node)
            waiting.extend(value for _, value in node.value)
        else:
            waiting.extend(node.value)


def _check_mapping(file: WorkspaceFile, node: yaml.MappingNode) -> None:
    names = set()
    for key, _ in node.value:
        line, shown = key.start_mark.line + 1, str(key.value)
        if key.tag == _MERGE_TAG:
            raise WorkspaceFileError(file.name, line, "", "“<<” is not understood here")
        if isinstance(key, yaml.ScalarNode) and shown in names:
            raise WorkspaceFileError(file.name, line, "", f"“{shown}” stands here a second time")
        names.add(shown)


# --- What is in it --------------------------------------------------------------------------------
def _mapping(
    file: WorkspaceFile, place: tuple[str, ...], value: Any, known: Iterable[str] = ()
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise file.problem(place, "must be names, each with a colon")
    for key in value:
        if not isinstance(key, str):
            raise file.problem((*place, str(key)), "a name must be text; put it in quotes")
        if known and key not in known:
            raise file.problem((*place, key), f"unknown; there are {', '.join(sorted(known))}")
    return value


def _workspace(file: WorkspaceFile, slug: str, entry: Any, directory: Path | None) -> Wanted:
    place = ("workspaces", slug)
    given = _mapping(file, place, {} if entry is None else entry)
    for name in SECRET_FIELDS:
        if name in given:
            problem = (
                f"a secret must not stand here; put it into a file, and name that: {name}_file"
            )
            raise file.problem((*place, name), problem)
    known = {"name", *configuring.DEFAULTS, *_SECRET_FILES, "grants"}
    _mapping(file, place, given, known)
    values = {"name": slug, **configuring.DEFAULTS}
    for name in given.keys() & values.keys():
        values[name] = _setting(file, (*place, name), given[name])
    for option in given.keys() & _SECRET_FILES.keys():
        values[_SECRET_FILES[option]] = _secret(file, (*place, option), given[option], directory)
    users, groups = _grants(file, (*place, "grants"), given.get("grants"))
    return Wanted(slug, values, users, groups)


def _setting(file: WorkspaceFile, place: tuple[str, ...], value: Any) -> Any:
    match place[-1]:
        case "enabled" | "accepts_clipboard" | "agents_see_people":
            if not isinstance(value, bool):
                raise file.problem(place, "must be true or false")
        case "idle_seconds" | "max_hold_seconds" | "parked_seconds":
            if value is not None and type(value) is not int:
                raise file.problem(place, "must be a whole number of seconds, or null")
        case _:
            if not isinstance(value, str):
                raise file.problem(place, "must be text; put it in quotes")
    return value


def _secret(file: WorkspaceFile, place: tuple[str, ...], value: Any, directory: Path | None) -> str:
    """Return what is in the file of this name; null removes what is stored."""
    if directory is None:
        raise file.problem(
            place, "no secrets here: set them on the workspace's page, or use sync_workspaces"
        )
    if value is None:
        return ""
    if not isinstance(value, str):
        raise file.problem(place, "must be the name of a file, or null")
    try:
        return configuring.read_secret(_SECRET_FILES[place[-1]], directory / value)
    except ValueError as error:
        raise file.problem(place, f"{value}: {error}") from None


def _grants(
    file: WorkspaceFile, place: tuple[str, ...], value: Any
) -> tuple[dict[str, str] | None, dict[str, str] | None]:
    if value is None:
        return None, None
    given = _mapping(file, place, value, known=("users", "groups"))
    users, groups = (
        _roles(file, (*place, kind), given.get(kind) or {}) for kind in ("users", "groups")
    )
    return users, groups


def _roles(file: WorkspaceFile, place: tuple[str, ...], value: Any) -> dict[str, str]:
    roles = _mapping(file, place, value)
    for name, role in roles.items():
        if role not in Role.values:
            raise file.problem((*place, name), f"must be one of {', '.join(Role.values)}")
    return roles


# --- Writing --------------------------------------------------------------------------------------
def write(workspaces: Iterable[Workspace]) -> str:
    """Return a file that wants these workspaces as they are, without their secrets.

    Reads their grants; prefetch ``grants__user`` and ``grants__group``.
    """
    entries = {workspace.slug: _entry(workspace) for workspace in workspaces}
    return _HEADER + yaml.safe_dump({"workspaces": entries}, allow_unicode=True, sort_keys=False)


def _entry(workspace: Workspace) -> dict[str, Any]:
    settings = {name: getattr(workspace, name) for name in configuring.DEFAULTS}
    told = {name: value for name, value in settings.items() if value != configuring.DEFAULTS[name]}
    grants: dict[str, dict[str, str]] = {"users": {}, "groups": {}}
    for grant in workspace.grants.all():
        if grant.user:
            grants["users"][grant.user.get_username()] = grant.role
        elif grant.group:
            grants["groups"][grant.group.name] = grant.role
    some = {kind: dict(sorted(roles.items())) for kind, roles in grants.items() if roles}
    return {"name": workspace.name, **told, "grants": some}
