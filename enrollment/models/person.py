"""The enrolled persons."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.db import models
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _

from enrollment.models.removal import DurablyDeleted
from enrollment.models.texts import (
    folded,
    in_natural_order,
    is_printable,
    letters_and_digits,
    normalised,
)
from recognition.sentences import gettext, gettext_lazy

PERSON_ID_MAX_LENGTH: Final = 200
NOTES_MAX_LENGTH: Final = 10_000
KEY_LENGTH: Final = 200  # characters of an indexed key; folding can make a text longer
_BLANK: Final = gettext_lazy("The person's id is blank. Give a CPF, a name, or any text.")
_PATHS: Final = frozenset({".", ".."})  # a URL path cannot contain them
# Columns computed from the id and the name, so they are saved together.
_COMPUTED: Final = ("id_key", "name_key", "search_text", "id_order")


def validate_not_blank(value: str) -> None:
    """Reject a blank id. Only migrations of version 1.0 use this; see `PersonIdField`."""
    if not value.strip():
        raise ValidationError(_BLANK, "blank")


def validate_person_id(value: str) -> None:
    if value in _PATHS:
        message = gettext_lazy(
            "A person's id cannot be '%(given)s', which stands for a folder. Give another."
        )
        raise ValidationError(message, "path", {"given": value})
    if not is_printable(value):
        raise ValidationError(
            gettext_lazy(
                "The person's id holds a control character, such as the end of a line or a tab. Give it "
                "without."
            ),
            "unprintable",
        )


def validate_not_past(value: date) -> None:
    if value < timezone.localdate():
        raise ValidationError(
            gettext_lazy("%(day)s is past. Give today, a later day, or none."),
            "past",
            {"day": date_format(value)},
        )


def default_keep_until() -> date | None:
    """Return the day `PERSON_KEEP_DAYS` from today, or None to keep people without a limit."""
    days = settings.PERSON_KEEP_DAYS
    return timezone.localdate() + timedelta(days=days) if days else None


class PersonIdField(models.CharField):  # type: ignore[type-arg]  # at run time it takes none
    """The id that clients give a person, stored as `normalised` returns it.

    Every entry point cleans ids here: through a form, `clean_fields` or `clean_person_id`.
    """

    default_validators = [validate_person_id]

    def to_python(self, value: Any) -> str:
        return normalised(super().to_python(value) or "")

    def get_prep_value(self, value: Any) -> Any:
        # Unchanged, so that rows of version 1.0 whose id could not be normalised are found and saved.
        return models.Field.get_prep_value(self, value)


class Person(DurablyDeleted):
    """An enrolled person. `person_id` is the id that clients use: a CPF, a name, or any text."""

    person_id = PersonIdField(
        _("person id"),
        max_length=PERSON_ID_MAX_LENGTH,
        unique=True,
        help_text=_("What other programs call this person: a CPF, a name, any text."),
        error_messages={
            "blank": _BLANK,
            "unique": _("There is already a person with this id. Add the pictures there."),
        },
    )
    name = models.CharField(_("name"), max_length=200, blank=True)
    notes = models.TextField(
        _("notes"), blank=True, validators=[MaxLengthValidator(NOTES_MAX_LENGTH)]
    )
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
            "When this day is over, the person is deleted with all pictures. Empty: kept "
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
    id_key = models.CharField(
        max_length=KEY_LENGTH,
        editable=False,
        db_index=True,
        default="",
        db_default="",  # of rows written by version 1.0, beside this one; see `compute_again`
        help_text="The id's letters and digits: ids that differ in nothing else are easily mistaken.",
    )
    name_key = models.CharField(
        max_length=KEY_LENGTH,
        editable=False,
        db_index=True,
        default="",
        db_default="",
        help_text="The name without accents and case: empty, or whose name is the same.",
    )
    search_text = models.TextField(
        editable=False,
        default="",
        db_default="",
        help_text="What the words of a search are looked for in.",
    )
    id_order = models.CharField(
        max_length=KEY_LENGTH,
        editable=False,
        db_index=True,
        default="",
        db_default="",
        help_text="What ids are sorted by: their numbers by value.",
    )
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated at"), auto_now=True)

    class Meta:
        verbose_name = _("person")
        verbose_name_plural = _("people")
        ordering = ["person_id"]
        permissions = [("export_person", "Can export all data of a person")]

    def __str__(self) -> str:
        return f"{self.name} ({self.person_id})" if self.name else self.person_id

    def validate_unique(self, exclude: Any = None) -> None:
        super().validate_unique(exclude)
        if "person_id" not in (exclude or ()) and (taker := self.taker_of_id()):
            message = id_is_merged(self.person_id, taker)
            raise ValidationError({"person_id": ValidationError(message, "merged")})

    def taker_of_id(self) -> Person | None:
        """Return whom else the id stands for, because who had it was merged into them."""
        takers = Person.objects.filter(merged_ids__person_id=self.person_id)
        return takers.exclude(pk=self.pk).first()

    def compute(self) -> None:
        """Fill the columns that searches read. Call this before writing rows without `save`."""
        for name, value in computed(self.person_id, self.name).items():
            setattr(self, name, value)

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        self.compute()
        if update_fields is not None:
            update_fields = {*update_fields, *_COMPUTED}
        super().save(*args, update_fields=update_fields, **kwargs)


def id_is_merged(person_id: str, taker: Person) -> str:
    """Return the message that an id cannot be given to anybody, because it stands for somebody."""
    message = gettext(
        "The id '%(person_id)s' was merged into %(person)s and stands for them since. Give another id, "
        "or undo the merge."
    )
    return message % {"person_id": person_id, "person": taker}


def computed(person_id: str, name: str) -> dict[str, str]:
    """Return what is computed of a person's id and name, by column."""
    key, plain = letters_and_digits(person_id), folded(name)
    # One part a line, so that a search word never matches across two parts.
    text = "\n".join((folded(person_id), plain, key))
    values = (key, plain, text, in_natural_order(person_id))
    lengths = (KEY_LENGTH, KEY_LENGTH, None, KEY_LENGTH)
    cut = (value[:length] for value, length in zip(values, lengths, strict=True))
    return dict(zip(_COMPUTED, cut, strict=True))


def tidy_rows(persons: models.Manager[Any]) -> list[int]:
    """Normalise the ids of rows written by version 1.0; return the keys of the persons whose id
    changed.

    An id stays as it is when its normalised form already belongs to another person, until somebody
    merges the two. `persons` may be the manager of a migration's historical model.
    """
    taken = set(persons.values_list("person_id", flat=True))
    renamed, changed, columns = [], [], _COMPUTED[:3]  # `id_order` came later; see `fill_order`
    for person in persons.only("person_id", "name").iterator(chunk_size=1000):
        tidy = normalised(person.person_id)
        if tidy and tidy not in taken:
            taken.add(tidy)
            person.person_id = tidy
            renamed.append(person.pk)
        values = computed(person.person_id, person.name)
        for column in columns:
            setattr(person, column, values[column])
        changed.append(person)
    persons.bulk_update(changed, ["person_id", *columns], batch_size=150)
    return renamed


def fill_order(persons: models.Manager[Any]) -> None:
    """Fill `id_order` of persons enrolled before there was one.

    `persons` may be the manager of a migration's historical model.
    """
    last = 0
    while some := list(persons.filter(pk__gt=last, id_order="").order_by("pk")[:1000]):
        last = some[-1].pk
        for person in some:
            person.id_order = in_natural_order(person.person_id)[:KEY_LENGTH]
        persons.bulk_update(some, ["id_order"], batch_size=150)


def compute_again(since: datetime) -> int:
    """Fill what searches read of persons changed since then by version 1.0; return how many."""
    recent = Person.objects.filter(updated_at__gte=since).only("person_id", "name", *_COMPUTED)
    changed = 0
    for person in recent.iterator(chunk_size=1000):
        values = computed(person.person_id, person.name)
        if any(getattr(person, name) != value for name, value in values.items()):
            same = Person.objects.filter(pk=person.pk, person_id=person.person_id, name=person.name)
            changed += same.update(**values)
    return changed
