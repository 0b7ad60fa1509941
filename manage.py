#!/usr/bin/env python
"""The command line of desktopctl: ``manage.py help`` lists what it can do."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from environs import EnvError

from controlplane.conf import KEY_IS_MISSING
from controlplane.exceptions import ConfigError


def main() -> None:
    """Run one management command; a bad setting ends it with a sentence, not a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desktopctl.settings")
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except (ConfigError, EnvError) as error:
        sys.exit(f"desktopctl: cannot start: {error}")
    except ImproperlyConfigured as error:
        # Not before it is needed: what installs a server (collectstatic) does without.
        if "SECRET_KEY setting must not be empty" not in str(error):
            raise
        sys.exit(f"desktopctl: {KEY_IS_MISSING}")


if __name__ == "__main__":
    main()
