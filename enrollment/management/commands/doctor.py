"""The name that `manage.py audit_gallery` had until version 1.0; it goes on working."""

from enrollment.management.commands.audit_gallery import Command

__all__ = ["Command"]
