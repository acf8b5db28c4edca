"""`manage.py import`, in the place of django-import-export's command, which writes any table unnoted."""

from faceproject.management.commands.export import Command as Command
