"""SQL that is made once: making it takes Django longer than it takes the database to answer.

Only for the few statements behind each decision about a lease. They are written with the ORM, for
both databases; their text is made once.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, Generic, TypeVar

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections, models

M = TypeVar("M", bound=models.Model)

# What stands for a key while the SQL is made: no key is negative, and these fit every column.
_FIRST_OPEN = -2_000_000_001


def made_once(make: Callable[[], models.QuerySet[M]]) -> Callable[[], models.QuerySet[M]]:
    """Have a query set made once in each thread, and copied from then on.

    For subqueries and the like, which take as long to put together as to write as SQL. Threads
    share none: while Django writes the SQL, it changes what a query set shares with its copies.
    """
    made = threading.local()

    @wraps(make)
    def copy() -> models.QuerySet[M]:
        if not hasattr(made, "rows"):
            made.rows = make()
        rows: models.QuerySet[M] = made.rows.all()
        return rows

    return copy


class Select(Generic[M]):
    """Rows by keys that are left open: ``Select(lambda pk: User.objects.filter(pk=pk))``.

    Annotations become attributes, as in a query set; related rows are not followed.
    """

    def __init__(self, build: Callable[..., models.QuerySet[M]]) -> None:
        self._build = build
        self._plans: dict[str, _Plan[M]] = {}  # by the kind of database

    def all(self, *keys: int) -> list[M]:
        """Return all rows, read now."""
        here = connections[DEFAULT_DB_ALIAS]
        plan = self._plans.get(here.vendor)
        if plan is None:
            plan = self._plans[here.vendor] = _plan(self._build)
        with run(here, plan.sql, plan.parameters(keys)) as cursor:
            return [plan.instance(row) for row in cursor.fetchall()]

    def get(self, *keys: int) -> M:
        """Return the one row; the model's DoesNotExist, as with a query set, if there is none."""
        found = self.first(*keys)
        if found is None:
            model: Any = self._build(*keys).model
            raise model.DoesNotExist
        return found

    def first(self, *keys: int) -> M | None:
        """Return the first row, if there is one."""
        rows = self.all(*keys)
        return rows[0] if rows else None


@dataclass(frozen=True, slots=True)
class _Plan(Generic[M]):
    """What the ORM makes of a query set."""

    sql: str
    slots: Sequence[Any]  # parameters, some of them open
    model: type[M]
    columns: slice  # of a row: the model's own
    names: Sequence[str]
    annotations: Mapping[str, int]
    converters: Mapping[int, tuple[Sequence[Callable[..., Any]], object]]

    def parameters(self, keys: Sequence[int]) -> list[Any]:
        open_keys = {_FIRST_OPEN - place: key for place, key in enumerate(keys)}
        return [open_keys.get(each, each) for each in self.slots]

    def instance(self, row: Sequence[Any]) -> M:
        if self.converters:
            row = self._converted(row)
        found = self.model.from_db(DEFAULT_DB_ALIAS, self.names, row[self.columns])
        for name, place in self.annotations.items():
            setattr(found, name, row[place])
        return found

    def _converted(self, row: Sequence[Any]) -> list[Any]:
        values, here = list(row), connections[DEFAULT_DB_ALIAS]
        for place, (converters, expression) in self.converters.items():
            for convert in converters:
                values[place] = convert(values[place], expression, here)
        return values


def _plan(build: Callable[..., models.QuerySet[M]]) -> _Plan[M]:
    count = len(inspect.signature(build).parameters)
    query = build(*(_FIRST_OPEN - place for place in range(count))).query
    compiler: Any = query.get_compiler(DEFAULT_DB_ALIAS)
    sql, parameters = compiler.as_sql()
    own = compiler.klass_info["select_fields"]
    columns = slice(own[0], own[-1] + 1)
    return _Plan(
        sql=sql,
        slots=parameters,
        model=compiler.klass_info["model"],
        columns=columns,
        names=[each[0].target.attname for each in compiler.select[columns]],
        annotations=compiler.annotation_col_map,
        converters=compiler.get_converters([each[0] for each in compiler.select]),
    )


class Update:
    """Write some columns of one row, as long as it has the version that was read."""

    def __init__(self, model: type[models.Model]) -> None:
        self._model = model
        self._texts: dict[tuple[str, ...], str] = {}

    def __call__(self, pk: int, version: int, values: Mapping[str, Any]) -> int:
        """Return how many rows that were: 1, or 0 where another has written it meanwhile."""
        here, names = connections[DEFAULT_DB_ALIAS], tuple(values)
        text = self._texts.get((here.vendor, *names))
        if text is None:
            text = self._texts[here.vendor, *names] = self._text(here, names)
        with run(here, text, [*_ready(self._model, values, here), pk, version]) as cursor:
            return int(cursor.rowcount)

    def _text(self, here: Any, names: Sequence[str]) -> str:
        quoted = here.ops.quote_name
        columns = ", ".join(f"{quoted(_field(self._model, name).column)} = %s" for name in names)
        where = f"{quoted('id')} = %s AND {quoted('version')} = %s"
        return f"UPDATE {quoted(self._model._meta.db_table)} SET {columns} WHERE {where}"  # noqa: S608  (names of ours)


class Insert:
    """Add a row."""

    def __init__(self, model: type[models.Model]) -> None:
        self._model = model
        self._texts: dict[tuple[str, ...], str] = {}

    def __call__(self, values: Mapping[str, Any]) -> int:
        """Add it with these columns, the others get the database's defaults; return its key."""
        here, names = connections[DEFAULT_DB_ALIAS], tuple(values)
        text = self._texts.get((here.vendor, *names))
        if text is None:
            text = self._texts[here.vendor, *names] = self._text(here, names)
        with run(here, text, _ready(self._model, values, here)) as cursor:
            return int(cursor.fetchone()[0])

    def _text(self, here: Any, names: Sequence[str]) -> str:
        quoted = here.ops.quote_name
        columns = ", ".join(quoted(_field(self._model, name).column) for name in names)
        marks = ", ".join(["%s"] * len(names))
        into = f"INSERT INTO {quoted(self._model._meta.db_table)} ({columns})"
        return f"{into} VALUES ({marks}) RETURNING {quoted('id')}"


@contextmanager
def run(here: Any, text: str, parameters: Sequence[Any]) -> Iterator[Any]:
    """Execute a statement within Django's transaction, and yield its cursor.

    On PostgreSQL it is kept prepared from its fifth use on (``prepare_threshold``); Django's own
    cursors never do that, and have it parsed and planned again each time.
    """
    is_watched = here.queries_logged or here.execute_wrappers  # they only see Django's cursors
    if here.vendor != "postgresql" or is_watched:
        with here.cursor() as cursor:
            cursor.execute(text, parameters)
            yield cursor
        return
    here.ensure_connection()
    here.validate_no_broken_transaction()
    with here.wrap_database_errors, psycopg.Cursor(here.connection) as prepared:
        prepared.execute(text, parameters)
        yield prepared


def _ready(model: type[models.Model], values: Mapping[str, Any], here: Any) -> list[Any]:
    return [_field(model, name).get_db_prep_save(value, here) for name, value in values.items()]


@cache
def _field(model: type[models.Model], attname: str) -> Any:
    return next(each for each in model._meta.concrete_fields if each.attname == attname)
