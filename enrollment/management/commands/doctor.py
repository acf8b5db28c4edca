"""The former name of `manage.py audit_gallery`; it still works."""

from enrollment.management.commands.audit_gallery import Command

__all__ = ["Command"]
