"""What a search saw, kept for a while: so that its answer can be acted on, and for the inbox.

What shows or measures a face is encrypted with a key of the installation; see `enrollment.probes`.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from enrollment.models.person import Person
from enrollment.models.search_entry import DECISION_LABELS

NUMBER_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"  # nothing that is read for another
NUMBER_LENGTH: Final = 12


def new_number() -> str:
    """Return a number that nobody guesses and everybody can read out."""
    return "".join(secrets.choice(NUMBER_ALPHABET) for _place in range(NUMBER_LENGTH))


class ProbeChannel(models.TextChoices):
    PAGE = "page", _("search page")
    API = "api", _("API")
    VERIFY = "verify", _("verification")
    IMPORT = "import", _("import")


class SearchAnswer(models.Model):
    """A search whose faces are kept until `expires_at`. `number` is what colleagues call it by."""

    number = models.CharField(max_length=20, unique=True, default=new_number, editable=False)
    created_at = models.DateTimeField(_("time"), default=timezone.now)
    expires_at = models.DateTimeField(_("kept until"), db_index=True)
    username = models.CharField(_("who"), max_length=150, blank=True)
    channel = models.CharField(_("channel"), max_length=10, choices=ProbeChannel)
    model = models.CharField(_("model"), max_length=50)
    content = models.BinaryField(
        null=True, editable=False, help_text="encrypted: what else it takes to show it again"
    )

    class Meta:
        verbose_name = _("kept answer")
        verbose_name_plural = _("kept answers")
        ordering = ["-pk"]
        default_permissions = ()

    def __str__(self) -> str:
        return self.number


class ProbeQuerySet(models.QuerySet[Any]):
    def waiting(self) -> ProbeQuerySet:
        """Return those of the inbox that nobody has settled and whose time is not over."""
        return self.filter(in_inbox=True, settled_at=None, kept_until__gt=timezone.now())


class Probe(models.Model):
    """A face that was searched, verified or refused by an import, kept until `kept_until`.

    With the encrypted fields empty it is only known that there was one. `person` is the nearest one,
    or whom it was settled to be; like every key here it may outlive its row until that is erased.
    """

    class Settled(models.TextChoices):
        ASSIGNED = "assigned", _("assigned")
        DISCARDED = "discarded", _("discarded")

    answer = models.ForeignKey(
        SearchAnswer, models.SET_NULL, null=True, related_name="probes", verbose_name=_("answer")
    )
    place = models.PositiveIntegerField(
        _("face"), default=1, help_text=_("Of the faces of the answer, from 1.")
    )
    created_at = models.DateTimeField(_("time"), default=timezone.now)
    username = models.CharField(_("who"), max_length=150, blank=True)
    channel = models.CharField(_("channel"), max_length=10, choices=ProbeChannel)
    model = models.CharField(_("model"), max_length=50)
    fingerprint = models.CharField(_("weights fingerprint"), max_length=40, blank=True)
    picture_hash = models.CharField(
        max_length=64,
        blank=True,
        db_index=True,
        help_text="keyed hash of the aligned crop: the same of the same picture",
    )
    person = models.ForeignKey(
        Person,
        models.DO_NOTHING,
        null=True,
        related_name="probes",
        verbose_name=_("nearest person"),
        db_constraint=False,
    )
    similarity = models.FloatField(_("similarity"), null=True)
    decision = models.CharField(_("decision"), max_length=10, choices=DECISION_LABELS, blank=True)
    reason = models.CharField(
        max_length=40, blank=True, help_text="code of the error for which an import refused it"
    )
    kept_until = models.DateTimeField(_("kept until"), db_index=True)
    in_inbox = models.BooleanField(default=False)
    group = models.BigIntegerField(
        null=True, db_index=True, help_text="the same for faces that look like one stranger"
    )
    settled_at = models.DateTimeField(_("settled at"), null=True, db_index=True)
    settled_by = models.CharField(_("settled by"), max_length=150, blank=True)
    settled_as = models.CharField(max_length=10, choices=Settled, blank=True)
    settled_in = models.BigIntegerField(
        null=True, db_index=True, help_text="key of the trash's item that takes it back"
    )
    # Last, because the database reads over what stands before a column.
    record = models.BinaryField(
        null=True,
        editable=False,
        help_text="encrypted JSON: `Crop.face_record` in pixels of `picture`; null: it is a crop",
    )
    vector = models.BinaryField(
        null=True, editable=False, help_text="encrypted: 512 little-endian float32, length 1"
    )
    picture = models.BinaryField(
        null=True, editable=False, help_text="encrypted JPEG: the face with a margin, or its crop"
    )

    objects = ProbeQuerySet.as_manager()

    class Meta:
        verbose_name = _("kept face")
        verbose_name_plural = _("kept faces")
        ordering = ["-pk"]
        default_permissions = ()
        indexes = [
            models.Index(
                # Also what else is asked of all that wait, so that their rows are not read.
                fields=["decision", "group", "channel", "kept_until", "model", "fingerprint"],
                condition=Q(in_inbox=True, settled_at=None),
                name="waiting_probes",
            )
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"
