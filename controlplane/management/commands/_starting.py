"""What the commands that go on running look at first; each refusal names what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError
from django.db import DatabaseError, connection

from controlplane import conf, readiness


def check_secret_key() -> None:
    """Raise CommandError without a SECRET_KEY."""
    if not _has_secret_key():
        raise CommandError(conf.KEY_IS_MISSING)


def _has_secret_key() -> bool:
    try:
        return bool(settings.SECRET_KEY)
    except ImproperlyConfigured:  # Django's answer to an empty one
        return False


def check_database() -> None:
    """Raise CommandError where the database is away."""
    with _explaining():
        connection.ensure_connection()


def check_migrations() -> None:
    """Raise CommandError where the database is away, or is not migrated."""
    with _explaining():
        connection.ensure_connection()  # else Django takes it for one without tables
        pending = readiness.pending_migrations()
    if pending:
        raise CommandError(readiness.ask_to_migrate(pending))


@contextmanager
def _explaining() -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        raise CommandError(f"The database does not answer; check DATABASE_URL: {error}") from None
    finally:
        connection.close()
