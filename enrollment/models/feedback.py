"""What operators said of matches: the teachers of this gallery's thresholds."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from enrollment.models.kept_probe import ProbeChannel
from enrollment.models.person import Person
from enrollment.models.picture import FaceImage
from enrollment.models.search_entry import DECISION_LABELS


class Feedback(models.Model):
    """Somebody said whether a searched face is this person's; the latest word for both counts.

    The face itself is not kept: `picture_hash` tells whether it is searched again. A row stays while
    the person is in the trash, and is erased with them.
    """

    class Verdict(models.TextChoices):
        CONFIRMED = "confirmed", _("confirmed")
        REJECTED = "rejected", _("rejected")

    created_at = models.DateTimeField(_("time"), default=timezone.now, db_index=True)
    username = models.CharField(_("who"), max_length=150, blank=True)
    person = models.ForeignKey(
        Person,
        models.DO_NOTHING,
        related_name="feedback",
        verbose_name=_("person"),
        db_constraint=False,
    )
    face_image = models.ForeignKey(
        FaceImage,
        models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("picture"),
        db_constraint=False,
        help_text=_("The enrolled picture that was most similar."),
    )
    model = models.CharField(_("model"), max_length=50)
    fingerprint = models.CharField(_("weights fingerprint"), max_length=40)
    similarity = models.FloatField(_("similarity"))
    decision = models.CharField(_("decision"), max_length=10, choices=DECISION_LABELS, blank=True)
    verdict = models.CharField(_("verdict"), max_length=10, choices=Verdict)
    picture_hash = models.CharField(
        max_length=64, help_text="keyed hash of the aligned crop: the same of the same picture"
    )
    source = models.CharField(_("channel"), max_length=10, choices=ProbeChannel)

    class Meta:
        verbose_name = _("feedback")
        verbose_name_plural = _("feedback")
        ordering = ["-pk"]
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["picture_hash", "person"], name="one_verdict_per_picture_and_person"
            )
        ]

    def __str__(self) -> str:
        return str(self.verdict)


class DistinctPair(models.Model):
    """Two persons who look alike and are two, as somebody said; `first` has the lower key."""

    first = models.ForeignKey(Person, models.CASCADE, related_name="+", db_constraint=False)
    second = models.ForeignKey(Person, models.CASCADE, related_name="+", db_constraint=False)
    created_at = models.DateTimeField(_("time"), default=timezone.now)
    username = models.CharField(_("who"), max_length=150, blank=True)

    class Meta:
        verbose_name = _("pair of distinct people")
        verbose_name_plural = _("pairs of distinct people")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["first", "second"], name="one_row_per_distinct_pair"),
            models.CheckConstraint(condition=Q(first__lt=F("second")), name="distinct_pair_sorted"),
        ]

    def __str__(self) -> str:
        return f"{self.first_id} {self.second_id}"
