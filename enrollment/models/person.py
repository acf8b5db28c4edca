"""Whom the pictures show."""

from __future__ import annotations

from datetime import date, timedelta

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import ProhibitNullCharactersValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

PERSON_ID_MAX_LENGTH = 200


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
