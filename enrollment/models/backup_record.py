"""The backups that were made."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _


class BackupRecordQuerySet(models.QuerySet[Any]):
    def on_hand(self) -> BackupRecordQuerySet:
        """Return the backups that nobody said are deleted."""
        return self.filter(deleted_at=None)


class BackupRecord(models.Model):
    """A backup file: it holds everybody who was enrolled when it was made, until it is deleted."""

    made_at = models.DateTimeField(_("made at"), default=timezone.now)
    file = models.CharField(_("file"), max_length=1000)
    size = models.BigIntegerField(_("bytes"))
    persons = models.PositiveIntegerField(_("people"))
    pictures = models.PositiveIntegerField(_("pictures"))
    keep_until = models.DateField(
        _("keep until"), null=True, blank=True, help_text=_("Empty: no day was set.")
    )
    deleted_at = models.DateTimeField(_("deleted at"), null=True, blank=True)

    objects = BackupRecordQuerySet.as_manager()

    class Meta:
        verbose_name = _("backup")
        verbose_name_plural = _("backups")
        ordering = ["made_at", "pk"]

    def __str__(self) -> str:
        return date_format(timezone.localtime(self.made_at), "SHORT_DATETIME_FORMAT")
