"""Doubts: reasons to check a picture again."""

from __future__ import annotations

from typing import Final

from django.db import models
from django.utils.translation import gettext_lazy as _

from enrollment.models.picture import FaceImage
from recognition.quality import reason_message
from recognition.sentences import gettext_lazy

SAME_WITHIN: Final = 0.01  # largest difference of equal evidence; relative for values above 1


class OpenDoubts(models.Manager["Doubt"]):
    """Select the doubts that nobody has dismissed."""

    def get_queryset(self) -> models.QuerySet[Doubt]:
        return super().get_queryset().filter(dismissed_at=None)


class Doubt(models.Model):
    """A reason to look at a picture again: low quality, or a face like another person's.

    `objects`, and the `doubts` of a picture, hold the open doubts only. A dismissed doubt stays in
    `with_dismissed`, so that the same evidence does not raise it again.

    `code` is a reason code of `recognition.quality` or a `Resemblance`. For a `Resemblance`,
    `given` and `expected` are cosine similarities. A doubt is deleted with either of the pictures
    that it names, so it keeps no trace of a deleted person.
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
    persons = models.CharField(
        max_length=50,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="keys of whom the picture, and the other, belonged to when they were compared",
    )
    dismissed_at = models.DateTimeField(_("dismissed at"), null=True, editable=False)
    dismissed_by = models.CharField(
        _("dismissed by"), max_length=150, blank=True, default="", db_default="", editable=False
    )

    objects = OpenDoubts()
    with_dismissed = models.Manager()

    class Meta:
        verbose_name = _("doubt")
        verbose_name_plural = _("doubts")
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.code

    def has_evidence_of(self, other: Doubt) -> bool:
        """Return whether both doubts have the same code, persons and measured value."""
        return (self.code, self.persons) == (other.code, other.persons) and abs(
            self.given - other.given
        ) <= SAME_WITHIN * max(1.0, abs(other.given))

    @property
    def similarity(self) -> float | None:
        """The cosine similarity behind a resemblance; None for a doubt about quality."""
        return round(self.given, 4) if self.code in self.Resemblance else None

    @property
    def message(self) -> str:
        """The doubt in the active language: the measured value, the expected one, what to do."""
        if self.code not in self.Resemblance:
            return reason_message(self.code, {"given": self.given, "expected": self.expected})
        sentence = _RESEMBLANCES[self.Resemblance(self.code)]
        return sentence % {
            "given": self.given,
            "expected": self.expected,
            "person": str(self.other.person) if self.other else "",
        }


_RESEMBLANCES: Final = {
    Doubt.Resemblance.LOOKS_LIKE_SOMEONE_ELSE: gettext_lazy(
        "The face looks like somebody else who is enrolled: %(person)s (similarity %(given)s; less than "
        "%(expected)s was expected). Check whom it shows."
    ),
    Doubt.Resemblance.UNLIKE_OWN_PICTURES: gettext_lazy(
        "The face does not look like this person's other pictures (similarity %(given)s at most; at "
        "least %(expected)s was expected). Check whom it shows."
    ),
    Doubt.Resemblance.SAME_PICTURE: gettext_lazy(
        "The very same picture is enrolled already, under %(person)s. Keep one of the two."
    ),
}
