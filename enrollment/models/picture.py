"""The enrolled pictures."""

from __future__ import annotations

import uuid
from functools import lru_cache

from django.db import models
from django.urls import get_script_prefix, reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from enrollment.models.person import Person
from enrollment.models.removal import DurablyDeleted, lock_rows
from recognition.quality import FaceQuality

PATH_MAX_LENGTH = 1000


def picture_path(face_image: FaceImage, filename: str) -> str:
    """Return a random storage path. Nothing of the client's file name is used but its type."""
    extension = "jpg" if filename.lower().endswith(("jpg", "jpeg")) else "png"
    return f"pictures/{timezone.now():%Y/%m}/{uuid.uuid4().hex}.{extension}"


@lru_cache(maxsize=4)
def _pictures_url(prefix: str) -> str:
    """Return the URL of every picture up to its number, below this prefix of all URLs."""
    return reverse("picture", args=[0]).removesuffix("0")


class FaceImage(DurablyDeleted):
    """One enrolled picture of a person, upright or with its orientation tag, without other
    metadata."""

    class Source(models.TextChoices):
        ADMIN = "admin", _("admin")
        API = "api", _("API")
        FOLDER = "folder", _("folder import")
        PAGE = "page", _("person page")

    person = models.ForeignKey(
        Person, models.CASCADE, related_name="face_images", verbose_name=_("person")
    )
    image = models.ImageField(_("picture"), upload_to=picture_path, max_length=200)
    original_path = models.CharField(
        _("original path"),
        max_length=PATH_MAX_LENGTH,
        blank=True,
        help_text=_("Where the client said the picture came from."),
    )
    content_hash = models.CharField(
        _("content hash"),
        max_length=64,
        blank=True,
        db_index=True,
        help_text=_("SHA-256 of the file as it was uploaded."),
    )
    upload_key = models.CharField(  # noqa: DJ001 (unique, and two empty texts would be the same)
        max_length=40,
        unique=True,
        null=True,
        editable=False,
        help_text="Which file of which idempotent request it was: a repeated one stores nothing twice.",
    )
    source = models.CharField(_("source"), max_length=10, choices=Source, default=Source.ADMIN)
    use_face_detection = models.BooleanField(
        _("use face detection"),
        default=True,
        help_text=_("Off: the whole picture is taken as an aligned crop of a face."),
    )
    chosen_face = models.JSONField(
        _("chosen face"),
        null=True,
        editable=False,
        help_text="of several, as an embedding's `face`; null: the largest",
    )
    width = models.PositiveIntegerField(_("width"), default=0, editable=False)
    height = models.PositiveIntegerField(_("height"), default=0, editable=False)
    created_at = models.DateTimeField(
        _("created at"), default=timezone.now, editable=False, db_index=True
    )

    judged_at = models.DateTimeField(
        _("judged at"),
        null=True,
        editable=False,
        db_index=True,
        help_text=_("When the face was compared with the gallery; empty: not yet."),
    )

    class Meta:
        verbose_name = _("picture")
        verbose_name_plural = _("pictures")
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.original_path or f"{self._meta.verbose_name} {self.pk}"

    @property
    def quality(self) -> FaceQuality | None:
        """The measured quality of the face, or None. Prefetch `embeddings` for many pictures."""
        return next((row.quality for row in self.embeddings.all() if row.quality), None)

    @property
    def search_state(self) -> str:
        """Whether searches find it: `indexed` with all models, `failed` with one, else `pending`."""
        states = {row.status for row in self.embeddings.all()}
        if "failed" in states:
            return "failed"
        return "indexed" if states == {"indexed"} else "pending"

    def get_absolute_url(self) -> str:
        """Return the URL of the view that serves the picture to users who may see it."""
        return f"{_pictures_url(get_script_prefix())}{self.pk}"


def judge_again(pictures: models.QuerySet[FaceImage]) -> None:
    """Within a transaction: have the server compare these pictures with the gallery once more."""
    lock_rows(pictures)
    pictures.update(judged_at=None)
