"""What Milvus must still be told to forget."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class VectorDeletion(models.Model):
    """A vector that Milvus must still forget; written with the deletion, gone when Milvus did it."""

    embedding_id = models.BigIntegerField()
    partition = models.CharField(max_length=120)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("pending deletion")
        verbose_name_plural = _("pending deletions")

    def __str__(self) -> str:
        return f"{self.partition} {self.embedding_id}"
