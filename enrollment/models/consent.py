"""Why a person may be kept, and for what: documents with their day, purposes and end."""

from __future__ import annotations

import uuid
from datetime import date
from pathlib import PurePosixPath
from typing import Any, Final

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.core.validators import FileExtensionValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _

from enrollment.models.person import Person

DOCUMENTS_FOLDER: Final = "consents"
DOCUMENT_TYPES: Final = ("pdf", "jpg", "jpeg", "png", "txt", "odt", "docx", "eml")


_TO_COME: Final = _("%(day)s is yet to come. Give today or an earlier day.")


def today() -> date:
    return timezone.localdate()


def validate_not_future(value: date) -> None:
    if value > today():
        raise ValidationError(_TO_COME, "future", {"day": date_format(value)})


def document_path(consent: Consent, filename: str) -> str:
    """Return a random storage path. Nothing of the client's file name is used but its type."""
    kind = PurePosixPath(filename).suffix.lower()
    kind = kind if kind.removeprefix(".") in DOCUMENT_TYPES else ""
    return f"{DOCUMENTS_FOLDER}/{timezone.now():%Y/%m}/{uuid.uuid4().hex}{kind}"


class Purpose(models.Model):
    """What people are searched for, such as the door of an office.

    Accounts in one of the groups, and tokens with purposes, find only people whose consent has one
    of these purposes.
    """

    name = models.CharField(_("name"), max_length=100, unique=True)
    groups = models.ManyToManyField(
        Group,
        blank=True,
        related_name="purposes",
        verbose_name=_("groups"),
        help_text=_("Accounts of these groups search for these purposes only."),
    )

    class Meta:
        verbose_name = _("purpose")
        verbose_name_plural = _("purposes")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_in_use(self) -> bool:
        """Whether a group or token is limited to it, or a consent names it."""
        return any(rows.exists() for rows in (self.groups, self.tokens, self.consents))


class ConsentQuerySet(models.QuerySet[Any]):
    def in_force(self) -> ConsentQuerySet:
        """Return those that began and did not end."""
        day = today()
        return self.filter(Q(expires=None) | Q(expires__gte=day), day__lte=day)


class Consent(models.Model):
    """A consent, a contract or another ground, with its document if there is one."""

    person = models.ForeignKey(
        Person,
        # Kept while the person is in the trash, and there again with them; erasing deletes it.
        models.DO_NOTHING,
        related_name="consents",
        verbose_name=_("person"),
        db_constraint=False,
    )
    document = models.FileField(
        _("document"),
        upload_to=document_path,
        max_length=200,
        blank=True,
        validators=[FileExtensionValidator(DOCUMENT_TYPES)],
        help_text=_("What was signed: PDF, picture or text."),
    )
    file_name = models.CharField(max_length=255, blank=True, editable=False)
    day = models.DateField(_("day"), default=today, help_text=_("When it was given."))
    expires = models.DateField(
        _("expires"), null=True, blank=True, help_text=_("The last day. Empty: it has no end.")
    )
    purposes = models.ManyToManyField(
        Purpose, blank=True, related_name="consents", verbose_name=_("purposes")
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    objects = ConsentQuerySet.as_manager()

    class Meta:
        verbose_name = _("consent")
        verbose_name_plural = _("consents")
        ordering = ["-day", "-pk"]

    def __str__(self) -> str:
        return f"{self.day:%Y-%m-%d}"

    def clean(self) -> None:
        if self.day and self.day > today():
            raise ValidationError({"day": _TO_COME % {"day": date_format(self.day)}})
        if self.expires and self.day and self.expires < self.day:
            raise ValidationError(
                {
                    "expires": _("It ends on %(end)s, before %(day)s, when it was given.")
                    % {"end": date_format(self.expires), "day": date_format(self.day)}
                }
            )

    @property
    def is_in_force(self) -> bool:
        return self.day <= today() and not self.has_expired

    @property
    def has_expired(self) -> bool:
        return self.expires is not None and self.expires < today()
