#!/usr/bin/env python
"""Django's command-line entrance."""

import gc
import os
import sys

# What is imported stays: to look through it for garbage again and again takes a third of a start.
# faceproject/apps.py enables it again, once the applications are there.
gc.disable()


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faceproject.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import DatabaseError

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"Not configured right: {error}")
    except DatabaseError as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(
            f"The SQL database does not answer as it should: {error}. Where it is, DATA_DIR and "
            "DATABASE_URL say (docs/configuration.md): if that is not where your data is, set them right. "
            "If it is new, run 'script/manage migrate'; if it was updated, 'script/manage upgrade'."
        )


if __name__ == "__main__":
    main()
