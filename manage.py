#!/usr/bin/env python
"""The command line of desktopctl: ``manage.py help`` lists what it can do."""

import os
import sys

from environs import EnvError

from controlplane.exceptions import ConfigError


def main() -> None:
    """Run one management command; a bad setting ends it with a sentence, not a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desktopctl.settings")
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except (ConfigError, EnvError) as error:
        sys.exit(f"desktopctl: cannot start: {error}")


if __name__ == "__main__":
    main()
