"""Receipts of erasures."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class Receipt(models.Model):
    """What was certified of an erasure, without the id that was asked for.

    With that id the same receipt, with the same signature, can be made again; `subject` is its keyed
    hash, which tells the right one from others.
    """

    made_at = models.DateTimeField(_("time"), default=timezone.now)
    subject = models.CharField(max_length=64, editable=False)
    content = models.JSONField(default=dict, editable=False)

    class Meta:
        verbose_name = _("receipt of an erasure")
        verbose_name_plural = _("receipts of erasures")
        ordering = ["-pk"]
        default_permissions = ["view"]

    def __str__(self) -> str:
        return f"{self.pk}"
