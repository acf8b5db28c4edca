"""The trash: what was deleted, moved or merged, as it was, until it is restored or erased.

A deleted row is really deleted, so no list, search or count has to leave it out. What it takes to
bring it back stands here as text, with its vectors; the picture files stay in the storage. Deleting
and keeping are one transaction, and so are restoring and forgetting.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, time, timedelta
from typing import Any, Final

from django.conf import settings
from django.core import serializers
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from enrollment.models.person import PERSON_ID_MAX_LENGTH, Person, PersonIdField


class ExactEncoder(DjangoJSONEncoder):
    """A JSON encoder that keeps microseconds; Django's own cuts times to milliseconds."""

    def default(self, value: Any) -> Any:
        return value.isoformat() if isinstance(value, datetime) else super().default(value)


def as_lines(rows: Iterable[models.Model], **options: Any) -> str:
    """Return the rows as JSON, one a line, from which `from_lines` makes equal rows."""
    lines: str = serializers.serialize("jsonl", rows, cls=ExactEncoder, **options)
    return lines


def from_lines(lines: str) -> Iterator[models.Model]:
    """Yield the unsaved rows that `as_lines` was given. Fields that exist no more are left out."""
    # Split at newlines only: names may contain other characters that `splitlines` splits at.
    text = io.StringIO(lines, newline="\n")
    for row in serializers.deserialize("jsonl", text, ignorenonexistent=True):
        yield row.object


class TrashItem(models.Model):
    """An act that can be taken back until `erase_at`; its parts hold what that takes."""

    class Kind(models.TextChoices):
        PERSON = "person", _("person deleted")
        PICTURES = "pictures", _("pictures deleted")
        MOVE = "move", _("pictures moved")
        MERGE = "merge", _("people merged")
        IMPORT = "import", _("pictures imported")
        CHANGE = "change", _("people changed")
        SETTLED = "settled", _("settled in the inbox")

    PEOPLE: Final = "people"  # the fact that tells of how many people it is

    kind = models.CharField(_("what"), max_length=10, choices=Kind)
    label = models.CharField(_("whom it is about"), max_length=500, blank=True)
    taker_pk = models.BigIntegerField(
        null=True, db_index=True, help_text="key of the person who got the pictures"
    )
    pictures = models.PositiveIntegerField(_("pictures"), default=0)
    facts = models.JSONField(default=dict, encoder=ExactEncoder)
    created_at = models.DateTimeField(_("time"), default=timezone.now)
    erase_at = models.DateTimeField(_("erased at"), db_index=True)

    class Meta:
        verbose_name = _("item of the trash")
        verbose_name_plural = _("items of the trash")
        ordering = ["-pk"]
        default_permissions = ()  # who may delete may restore

    def __str__(self) -> str:
        return (
            f"{self.get_kind_display()}: {self.about}"
            if self.about
            else str(self.get_kind_display())
        )

    @property
    def about(self) -> str:
        """Whom it is about, in the active language; earlier versions stored the words themselves."""
        count = self.facts.get(self.PEOPLE)
        if count is None:
            return self.label
        return ngettext("%(count)d person", "%(count)d people", count) % {"count": count}

    @property
    def person_ids(self) -> list[str]:
        """The ids of the persons whom it holds. Prefetch `PERSONS_OF_ITEMS` for many items."""
        known = getattr(self, "persons", None)
        parts = self.parts.exclude(person_id="").defer("content") if known is None else known
        return [part.person_id for part in parts]


class TrashedPart(models.Model):
    """One person or one picture of a `TrashItem`.

    `content` has the rows to restore, `person_pk` whom the picture belonged to. Moved pictures and
    merged persons' pictures are still there, so these parts have neither a content nor a file. Of a
    changed person it holds the former values, and no `person_id`: nobody is deleted.
    """

    item = models.ForeignKey(TrashItem, models.CASCADE, related_name="parts")
    person_pk = models.BigIntegerField(db_index=True)
    person_id = models.CharField(
        max_length=PERSON_ID_MAX_LENGTH, blank=True, db_index=True, help_text="of a person"
    )
    picture_pk = models.BigIntegerField(null=True, db_index=True, help_text="null: it is a person")
    file = models.CharField(max_length=200, blank=True, db_index=True)
    content = models.TextField(blank=True)

    class Meta:
        verbose_name = _("part of the trash")
        verbose_name_plural = _("parts of the trash")
        default_permissions = ()

    def __str__(self) -> str:
        return self.person_id or f"#{self.picture_pk}"


class MergedId(models.Model):
    """The id of a person who was merged, and whom it stands for since."""

    person_id = PersonIdField(_("merged id"), max_length=PERSON_ID_MAX_LENGTH, unique=True)
    taker = models.ForeignKey(
        Person,
        models.CASCADE,
        related_name="merged_ids",
        verbose_name=_("merged into"),
        db_constraint=False,  # version 1.0 beside this one deletes persons, and does not know it
    )
    former_pk = models.BigIntegerField(
        db_index=True, editable=False, help_text="key of the person who was merged"
    )
    former_created_at = models.DateTimeField(
        null=True, editable=False, help_text="when that person was enrolled"
    )
    created_at = models.DateTimeField(_("merged at"), default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("merged id")
        verbose_name_plural = _("merged ids")
        ordering = ["person_id"]
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.person_id)


def new_item(
    kind: str, whom: str | int, persons: Iterable[Person] = (), **values: Any
) -> TrashItem | None:
    """Store an item without parts; return None when `TRASH_DAYS` is 0.

    `whom` is its label, or of how many people it is. It is kept no longer than the first last day
    (`keep_until`) of the persons whom it holds.
    """
    due = erased_at(persons)
    if due is None:
        return None
    if isinstance(whom, int):
        values["facts"] = {**values.get("facts", {}), TrashItem.PEOPLE: whom}
    else:
        values["label"] = whom[:500]
    return TrashItem.objects.create(kind=kind, erase_at=due, **values)


def erased_at(persons: Iterable[Person]) -> datetime | None:
    """Return until when the trash keeps these persons, deleted now; None when it keeps nobody."""
    if not settings.TRASH_DAYS:
        return None
    days = [person.keep_until for person in persons if person.keep_until]
    due = timezone.now() + timedelta(days=settings.TRASH_DAYS)
    # Later ones do not matter, and the day after the last of all, 9999-12-31, is none.
    if days and min(days) < timezone.localdate(due):
        midnight = datetime.combine(min(days) + timedelta(days=1), time.min)
        due = min(due, timezone.make_aware(midnight))
    return due


def whom_of(persons: Sequence[Person]) -> str | int:
    """Return what an item says of whom it is: of several persons their number, which names nobody."""
    return str(persons[0]) if len(persons) == 1 else len(persons)
