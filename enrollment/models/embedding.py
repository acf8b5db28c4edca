"""What the networks compute from a picture. Milvus holds a copy of these rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.utils.translation import gettext_lazy as _

from enrollment.models.picture import FaceImage
from enrollment.models.removal import DurablyDeleted
from recognition.quality import FaceQuality

if TYPE_CHECKING:
    import numpy as np


class FaceEmbedding(DurablyDeleted):
    """What one network with one weights file computed from a picture.

    Milvus uses the id of this row as its primary key.
    """

    class Status(models.TextChoices):
        PENDING = "pending", _("not searchable yet")
        INDEXED = "indexed", _("searchable")
        FAILED = "failed", _("failed")

    class Failure(models.TextChoices):
        """Why a search cannot find the picture. Stored as a code, shown as a translated sentence."""

        PICTURE_MISSING = (
            "picture_missing",
            _(
                "The stored file of this picture is missing. Bring it back from a backup or delete the "
                "picture, then run 'manage.py reindex'."
            ),
        )
        INVALID_IMAGE = (
            "invalid_image",
            _(
                "The stored file of this picture is damaged. Bring it back from a backup or delete the "
                "picture, then run 'manage.py reindex'."
            ),
        )
        STORAGE_UNAVAILABLE = (
            "storage_unavailable",
            _(
                "The storage of the pictures did not give the file. The server tries again by itself; the "
                "log names the cause."
            ),
        )
        NO_FACE_DETECTED = (
            "no_face_detected",
            _("No face was found in the picture, and one is required. Put another in its place."),
        )
        WEIGHTS_UNAVAILABLE = (
            "weights_unavailable",
            _(
                "The weights file of this model is missing or does not load. Put a whole one into its "
                "place ('manage.py check' and /api/health name it), then run 'manage.py reindex'."
            ),
        )
        WEIGHTS_REPLACED = (
            "weights_replaced",
            _("The weights file was replaced meanwhile. Run 'manage.py reindex'."),
        )
        DETECTOR_UNAVAILABLE = (
            "detector_unavailable",
            _(
                "The face detector that is chosen cannot be used. The server tries again by itself; the "
                "log names the cause."
            ),
        )
        OUT_OF_DEVICE_MEMORY = (
            "out_of_device_memory",
            _(
                "The GPU had too little memory. The server tries again by itself; if it stays so, lower "
                "EMBED_BATCH_SIZE or set DEVICE=cpu."
            ),
        )
        VECTOR_STORE_UNAVAILABLE = (
            "vector_store_unavailable",
            _(
                "The vector database did not take the picture. The server tries again by itself; if it "
                "stays so, 'manage.py diagnose' says what is wrong."
            ),
        )
        VECTOR_STORE_LOCKED = (
            "vector_store_locked",
            _(
                "The vector database is open in another process, usually the running server. That one "
                "makes the picture searchable by itself."
            ),
        )
        UNEXPECTED = (
            "unexpected",
            _("It failed in a way that nobody foresaw; the log says how. Report it."),
        )

    face_image = models.ForeignKey(
        FaceImage, models.CASCADE, related_name="embeddings", verbose_name=_("picture")
    )
    model = models.CharField(_("model"), max_length=50)
    fingerprint = models.CharField(
        _("weights fingerprint"),
        max_length=40,
        help_text=_(
            "Which weights file it was computed with; only with the same one are pictures comparable."
        ),
    )
    vector = models.BinaryField(
        null=True,
        editable=False,
        help_text="512 little-endian float32, length 1; null until computed",
    )
    face_detected = models.BooleanField(_("face detected"), null=True, editable=False)
    face = models.JSONField(
        null=True, editable=False, help_text="box [x, y, w, h], score and landmarks in pixels"
    )
    status = models.CharField(
        _("status"), max_length=10, choices=Status, default=Status.PENDING, db_index=True
    )
    error = models.TextField(_("error"), blank=True)
    indexed_at = models.DateTimeField(_("searchable since"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    class Meta:
        verbose_name = _("embedding")
        verbose_name_plural = _("embeddings")
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["face_image", "model", "fingerprint"], name="one_embedding_per_weights"
            )
        ]
        indexes = [
            # Without it, counting computed embeddings reads all vectors. No index begins with model or
            # fingerprint: nearly all rows have the same, and SQLite, which takes two columns of an index for
            # telling, would look for the embeddings of one person among those of all.
            models.Index(
                fields=["face_image", "model", "fingerprint"],
                condition=models.Q(vector__isnull=False),
                name="embedding_computed",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.pk}"

    @property
    def quality(self) -> FaceQuality | None:
        """The measured quality of the face; None without a face or before it is measured."""
        record = (self.face or {}).get("quality")
        return record and FaceQuality.from_record(record)

    @property
    def error_message(self) -> str:
        """`error` in the active language. Older versions stored the sentence itself."""
        return str(self.Failure(self.error).label) if self.error in self.Failure else self.error

    @property
    def array(self) -> np.ndarray | None:
        """The vector, 512 float32 of length 1; None until it is computed."""
        import numpy as np

        return None if self.vector is None else np.frombuffer(self.vector, "<f4")

    @array.setter
    def array(self, vector: np.ndarray) -> None:
        self.vector = vector.astype("<f4").tobytes()

    def computed_array(self) -> np.ndarray:
        """Return the vector, 512 float32 of length 1. Raise `ValueError` if it is not computed yet."""
        if (array := self.array) is None:
            raise ValueError(f"The vector of embedding {self.pk} was not computed yet.")
        return array
