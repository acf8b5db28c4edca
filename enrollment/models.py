"""People, their pictures, and what was computed from them: the truth that Milvus holds a copy of."""

from __future__ import annotations

import uuid
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.core.validators import ProhibitNullCharactersValidator
from django.db import models
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext_lazy as _

from recognition.decision import Decision, Thresholds
from recognition.networks.descriptor import Threshold
from recognition.quality import FaceQuality, reason_message

if TYPE_CHECKING:
    import numpy as np

PERSON_ID_MAX_LENGTH = 200
DECISION_LABELS: Final = [
    (Decision.MATCH.value, _("Match")),
    (Decision.REVIEW.value, _("Look closely")),
    (Decision.UNKNOWN.value, _("Unknown")),
]
PATH_MAX_LENGTH = 1000


def validate_not_blank(value: str) -> None:
    if not value.strip():
        raise ValidationError(
            _("The person's id is blank. Give a CPF, a name, or any text."), "blank"
        )


def validate_not_past(value: date) -> None:
    if value < timezone.localdate():
        raise ValidationError(
            _("%(day)s is past. Give today, a later day, or none."),
            "past",
            {"day": value},
        )


def default_keep_until() -> date | None:
    """By `PERSON_KEEP_DAYS`, counted from today; None keeps people until somebody deletes them."""
    days = settings.PERSON_KEEP_DAYS
    return timezone.localdate() + timedelta(days=days) if days else None


class Person(models.Model):
    """Somebody enrolled. `person_id` is what clients call them: a CPF, a name, any text."""

    person_id = models.CharField(
        _("person id"),
        max_length=PERSON_ID_MAX_LENGTH,
        unique=True,
        validators=[validate_not_blank, ProhibitNullCharactersValidator()],
        help_text=_("What other programs call this person: a CPF, a name, any text."),
        error_messages={
            "unique": _("There is already a person with this id. Add the pictures there.")
        },
    )
    name = models.CharField(_("name"), max_length=200, blank=True)
    notes = models.TextField(_("notes"), blank=True)
    legal_basis = models.CharField(
        _("legal basis"),
        max_length=500,
        blank=True,
        help_text=_(
            "What allows keeping these pictures, and for what: a consent and its day, a law."
        ),
    )
    keep_until = models.DateField(
        _("keep until"),
        null=True,
        blank=True,
        db_index=True,
        default=default_keep_until,
        validators=[validate_not_past],
        help_text=_(
            "When this day is over, the person is deleted with all pictures and vectors. Empty: kept "
            "until somebody deletes them."
        ),
    )
    cover = models.ForeignKey(
        "FaceImage",
        models.SET_NULL,
        related_name="+",
        null=True,
        blank=True,
        editable=False,
        verbose_name=_("cover picture"),
        help_text=_("The picture of this person that lists show; without one, the first."),
    )
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated at"), auto_now=True)

    class Meta:
        verbose_name = _("person")
        verbose_name_plural = _("persons")
        ordering = ["person_id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.person_id})" if self.name else self.person_id


def picture_path(face_image: FaceImage, filename: str) -> str:
    """A name of our own: nothing of what the client called the file reaches the storage."""
    extension = "jpg" if filename.lower().endswith(("jpg", "jpeg")) else "png"
    return f"pictures/{timezone.now():%Y/%m}/{uuid.uuid4().hex}.{extension}"


class FaceImage(models.Model):
    """One enrolled picture of a person, stored upright or with its orientation, without metadata."""

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
    width = models.PositiveIntegerField(_("width"), default=0, editable=False)
    height = models.PositiveIntegerField(_("height"), default=0, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

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
        """What was measured of the face, when one was found; of many pictures, prefetch the embeddings."""
        return next((row.quality for row in self.embeddings.all() if row.quality), None)

    def get_absolute_url(self) -> str:
        """Where those allowed to see it find the picture, whatever storage holds it."""
        return reverse("picture", args=[self.pk])


class FaceEmbedding(models.Model):
    """What one network, with one weights file, computed from a picture. Its id is Milvus's key."""

    class Status(models.TextChoices):
        PENDING = "pending", _("pending")
        INDEXED = "indexed", _("indexed")
        FAILED = "failed", _("failed")

    class Failure(models.TextChoices):
        """Why a search cannot find it, and what to do; kept as a code, told in the reader's language."""

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
                "The vector database did not take the vector. The server tries again by itself; if it "
                "stays so, 'manage.py diagnose' says what is wrong."
            ),
        )
        VECTOR_STORE_LOCKED = (
            "vector_store_locked",
            _(
                "The embedded vector database is open in another process, usually the running server. "
                "That one copies the vector by itself."
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
        help_text=_("Which weights file made the vector; those of others are not comparable."),
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
    indexed_at = models.DateTimeField(_("indexed at"), null=True, blank=True)
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
        indexes = [models.Index(fields=["model", "fingerprint"], name="embedding_weights")]

    def __str__(self) -> str:
        return f"{self.model} {self.pk}"

    @property
    def quality(self) -> FaceQuality | None:
        """What was measured of the face; None without a face, or where it was not measured yet."""
        record = (self.face or {}).get("quality")
        return record and FaceQuality.from_record(record)

    @property
    def error_message(self) -> str:
        """`error` as a sentence in the language in force; what older versions stored is one already."""
        return str(self.Failure(self.error).label) if self.error in self.Failure else self.error

    @property
    def array(self) -> np.ndarray | None:
        """The vector as 512 float32, or None when it was not computed yet."""
        import numpy as np

        return None if self.vector is None else np.frombuffer(self.vector, "<f4")

    @array.setter
    def array(self, vector: np.ndarray) -> None:
        self.vector = vector.astype("<f4").tobytes()


class Doubt(models.Model):
    """A reason to look at a picture again: its quality, or whom it resembles.

    `code` is a reason of `recognition.quality` or a `Resemblance`; of the latter `given` and `expected`
    are cosines. The doubt goes with the picture that it names, so nobody who is deleted is remembered.
    """

    class Resemblance(models.TextChoices):
        LOOKS_LIKE_SOMEONE_ELSE = "looks_like_someone_else", _("looks like somebody else")
        UNLIKE_OWN_PICTURES = "unlike_own_pictures", _("unlike the person's other pictures")
        SAME_PICTURE = "same_picture", _("the same file as another picture")

    face_image = models.ForeignKey(
        FaceImage, models.CASCADE, related_name="doubts", verbose_name=_("picture")
    )
    code = models.CharField(_("code"), max_length=40, db_index=True)
    given = models.FloatField(default=0)
    expected = models.FloatField(default=0)
    other = models.ForeignKey(
        FaceImage,
        models.CASCADE,
        null=True,
        related_name="+",
        verbose_name=_("the picture it resembles"),
    )

    class Meta:
        verbose_name = _("doubt")
        verbose_name_plural = _("doubts")
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.code

    @property
    def message(self) -> str:
        """What was given and expected and what to do, in the language in force."""
        if self.code not in self.Resemblance:
            return reason_message(self.code, {"given": self.given, "expected": self.expected})
        sentence = _RESEMBLANCES[self.Resemblance(self.code)]
        return sentence % {
            # number_format cuts digits off: 0.985 would be told as 0.98.
            "given": number_format(f"{self.given:.2f}"),
            "expected": number_format(f"{self.expected:.2f}"),
            "person": self.other.person if self.other else "",
        }


_RESEMBLANCES: Final = {
    Doubt.Resemblance.LOOKS_LIKE_SOMEONE_ELSE: _(
        "The face looks like somebody else who is enrolled: %(person)s (similarity %(given)s; less than "
        "%(expected)s was expected). Check whom it shows."
    ),
    Doubt.Resemblance.UNLIKE_OWN_PICTURES: _(
        "The face does not look like this person's other pictures (similarity %(given)s at most; at "
        "least %(expected)s was expected). Check whom it shows."
    ),
    Doubt.Resemblance.SAME_PICTURE: _(
        "The very same picture is enrolled already, under %(person)s. Keep one of the two."
    ),
}


class Calibration(models.Model):
    """Thresholds measured on this gallery; they win over those that came with the weights."""

    model = models.CharField(max_length=50)
    fingerprint = models.CharField(max_length=40)
    match = models.FloatField()
    match_far = models.FloatField()
    review = models.FloatField()
    review_far = models.FloatField()
    genuine_pairs = models.PositiveIntegerField()
    impostor_pairs = models.PositiveIntegerField()
    persons = models.PositiveIntegerField()
    curve = models.JSONField(
        default=list, help_text="similarities at other rates, as [[far, cosine]]"
    )
    created_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = _("calibration")
        verbose_name_plural = _("calibrations")
        constraints = [
            models.UniqueConstraint(
                fields=["model", "fingerprint"], name="one_calibration_per_weights"
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.fingerprint}"

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(
            match=Threshold(self.match, self.match_far, self.impostor_pairs),
            review=Threshold(self.review, self.review_far, self.impostor_pairs),
            curve=tuple(Threshold(cosine, fmr, self.impostor_pairs) for fmr, cosine in self.curve),
        )


class Examination(models.Model):
    """What the gallery doctor found the last time; ids alone, so nobody who is deleted is remembered."""

    model = models.CharField(max_length=50)
    pictures = models.PositiveIntegerField()
    findings = models.JSONField(default=dict)
    seconds = models.FloatField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("examination")
        verbose_name_plural = _("examinations")

    def __str__(self) -> str:
        return f"{self.model} {self.created_at:%Y-%m-%d %H:%M}"


class SearchEntry(models.Model):
    """A face that somebody searched for or verified, and the best answer; never the picture.

    Who is deleted is forgotten here, too: the entry stays, without a name.
    """

    class Channel(models.TextChoices):
        PAGE = "page", _("search page")
        API = "api", _("API")
        VERIFY = "verify", _("verification")

    created_at = models.DateTimeField(_("time"), default=timezone.now, db_index=True)
    username = models.CharField(
        _("who"), max_length=150, blank=True, help_text=_("Empty: no account was needed.")
    )
    channel = models.CharField(_("channel"), max_length=10, choices=Channel)
    model = models.CharField(_("model"), max_length=50)
    person = models.ForeignKey(
        Person,
        models.SET_NULL,
        null=True,
        related_name="search_entries",
        verbose_name=_("nearest person"),
        help_text=_("Empty: nobody was found, or the person was deleted since."),
    )
    similarity = models.FloatField(_("similarity"), null=True)
    decision = models.CharField(
        _("decision"), max_length=10, choices=DECISION_LABELS, blank=True, db_index=True
    )
    answers = models.PositiveIntegerField(
        _("pictures answered"), help_text=_("How many enrolled pictures the answer named.")
    )
    request_id = models.CharField(
        _("request"), max_length=64, blank=True, help_text=_("As in the log and in X-Request-ID.")
    )

    class Meta:
        verbose_name = _("search")
        verbose_name_plural = _("searches")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.username} {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def percent(self) -> float | None:
        """The similarity as the pages show it."""
        return None if self.similarity is None else 100 * max(self.similarity, 0.0)


class IdempotentRequest(models.Model):
    """A request that its client may repeat under one key; without `status` it was not finished yet."""

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
