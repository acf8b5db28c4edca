"""What was erased, so that restoring an older backup does not bring it back."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class ErasedId(models.Model):
    """An erased person or picture. Only a hash is kept, made with a key that no backup holds."""

    digest = models.CharField(max_length=64, unique=True, help_text="HMAC-SHA-256, hexadecimal.")
    key = models.CharField(max_length=16, help_text="The name of the key that made it.")
    erased_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        verbose_name = _("erased id")
        verbose_name_plural = _("erased ids")
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.digest[:8]
