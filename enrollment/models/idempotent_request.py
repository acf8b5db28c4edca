"""Requests with an `Idempotency-Key`, which their clients may repeat."""

from __future__ import annotations

import hashlib

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils.translation import gettext_lazy as _


class IdempotentRequest(models.Model):
    """A request that its client may repeat with the same key. `status` is null until it is
    finished."""

    owner = models.CharField(max_length=40, blank=True, help_text="the user's key; empty: nobody")
    key = models.CharField(max_length=255)
    digest = models.CharField(max_length=64, help_text="SHA-256 of what was asked")
    started_at = models.DateTimeField(null=True, help_text="null: to be taken up by a repetition")
    status = models.PositiveSmallIntegerField(null=True)
    answer = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        verbose_name = _("idempotent request")
        verbose_name_plural = _("idempotent requests")
        constraints = [
            models.UniqueConstraint(fields=["owner", "key"], name="one_request_per_key"),
        ]

    def __str__(self) -> str:
        return self.key

    def upload_key(self, number: int) -> str:
        """Return the `FaceImage.upload_key` of the file with this number in the request.

        It hashes the owner, the key, the request's content (`digest`) and its time. The row's id
        would not do: after a restore, another request may have the same id.
        """
        parts = "\n".join([self.owner, self.key, self.digest, self.created_at.isoformat()])
        return f"{hashlib.sha256(parts.encode()).hexdigest()[:32]}:{number}"
