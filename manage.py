#!/usr/bin/env python
"""The command line of desktopctl: ``manage.py help`` lists what it can do."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, execute_from_command_line
from django.db import DatabaseError
from environs import EnvError

from controlplane import memory
from controlplane.conf import KEY_IS_MISSING
from controlplane.exceptions import ConfigError


def main() -> None:
    """Run one management command; what is not set up yet ends it with a sentence, no traceback."""
    memory.collect_less_often()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desktopctl.settings")
    try:
        execute_from_command_line(sys.argv)
    except (ConfigError, EnvError) as error:
        sys.exit(f"desktopctl: cannot start: {error}")
    except ImproperlyConfigured as error:
        # Not before it is needed: what installs a server (collectstatic) does without.
        if "SECRET_KEY setting must not be empty" not in str(error):
            raise
        sys.exit(f"desktopctl: {KEY_IS_MISSING}")
    except DatabaseError:
        _name_what_the_database_lacks()
        raise


def _name_what_the_database_lacks() -> None:
    """End with a sentence if the database is away or not migrated; return if it is neither."""
    from controlplane.management.commands import _starting  # it needs the settings

    is_migrating = sys.argv[1:2] == ["migrate"]
    try:
        (_starting.check_database if is_migrating else _starting.check_migrations)()
    except CommandError as error:
        sys.exit(f"desktopctl: {error}")


if __name__ == "__main__":
    main()
