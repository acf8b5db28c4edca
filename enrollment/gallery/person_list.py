"""Find persons by id, name and state, in the orders of lists; bounded SQL at 100,000 persons.

Lists first find primary keys, then load what the shown persons need: counts and pictures of
everybody who is found would be computed before the first one is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from django.db.models import Case, Count, Exists, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Coalesce, Greatest
from django.utils.translation import gettext_lazy as _

from enrollment.gallery.purposes import DUE_SOON, persons_expiring
from enrollment.models import Consent, Doubt, FaceImage, Person, folded, letters_and_digits


def pictures_of_each() -> QuerySet[FaceImage]:
    """Return a subquery for the pictures of each person of the outer query."""
    return FaceImage.objects.filter(person=OuterRef("pk")).order_by()


def count_of(pictures: QuerySet[FaceImage]) -> Coalesce:
    """Return an annotation that counts the pictures of the subquery `pictures_of_each()`."""
    counted = pictures.values("person").annotate(count=Count("pk")).values("count")
    return Coalesce(Subquery(counted), 0)


def with_pictures(persons: QuerySet[Person]) -> QuerySet[Person]:
    """Annotate persons with `picture_count` and `shown_picture`, the id of the cover or the first
    picture."""
    first = pictures_of_each().order_by("pk").values("pk")[:1]
    return persons.annotate(
        picture_count=count_of(pictures_of_each()),
        shown_picture=Coalesce("cover_id", Subquery(first)),
    )


def with_loneliness(persons: QuerySet[Person]) -> QuerySet[Person]:
    """Annotate persons with `is_alone`: nobody else has a picture."""
    return persons.annotate(is_alone=~Exists(FaceImage.objects.exclude(person=OuterRef("pk"))))


def holds_words(text: str, person: str = "") -> Q:
    """Return a filter for persons whose id or name contains every word, ignoring accents and case.

    Digits match ids regardless of punctuation. `person` is the lookup path to the person, such as
    `"person__"`, for rows that refer to one.
    """
    found = Q()
    for word in folded(text).split():
        here = Q(**{f"{person}search_text__contains": word})
        digits = letters_and_digits(word)
        if digits.isdigit():
            here |= Q(**{f"{person}id_key__contains": digits})
        found &= here
    return found


def find_persons(text: str = "") -> QuerySet[Person]:
    """Return the persons that match `holds_words`, annotated by `with_pictures`, ordered by id."""
    return with_pictures(Person.objects.filter(holds_words(text)))


GALLERY_ORDERS: Final = {  # how lists of persons can be sorted: a label, and the columns
    "id": (_("by id"), ("id_order", "person_id")),
    "name": (_("by name"), ("is_nameless", "name_key", "id_order", "person_id")),
    "changed": (_("last changed first"), ("-changed_at", "-pk")),
    "doubts": (_("most doubts first"), ("-doubt_count", "id_order", "person_id")),
    "newest": (_("newest first"), ("-created_at", "-pk")),
    "most": (_("most pictures first"), ("-picture_count", "id_order", "person_id")),
    "fewest": (_("fewest pictures first"), ("picture_count", "id_order", "person_id")),
}
PERSON_FILTERS: Final = {  # which persons a list can be limited to
    "doubtful": _("with doubts"),
    "single": _("with one picture only"),
    "expiring": _("expiring within 30 days"),
    "baseless": _("without a legal basis"),
}


def filtered_persons(text: str = "", filters: Iterable[str] = ()) -> QuerySet[Person]:
    """Return the persons that match `holds_words` and all these `PERSON_FILTERS`."""
    persons: QuerySet[Person] = Person.objects.filter(holds_words(text))
    for name in filters:
        persons = _only(persons, name)
    return persons


def _only(persons: QuerySet[Person], name: str) -> QuerySet[Person]:
    match name:
        case "doubtful":
            return persons.filter(pk__in=_doubtful())
        case "single":
            counted = FaceImage.objects.order_by().values("person").annotate(count=Count("pk"))
            return persons.filter(pk__in=counted.filter(count=1).values("person"))
        case "expiring":
            return persons.filter(pk__in=persons_expiring(DUE_SOON))
        case "baseless":
            in_force = Consent.objects.in_force().filter(person=OuterRef("pk"))
            return persons.filter(~Exists(in_force), legal_basis="")
    raise ValueError(f"There is no filter '{name}', only {', '.join(PERSON_FILTERS)}.")


def _doubtful() -> QuerySet[Any]:
    return Doubt.objects.order_by().values("face_image__person")


def sorted_persons(persons: QuerySet[Person], order: str) -> QuerySet[Person]:
    """Return the persons in one of the `GALLERY_ORDERS`."""
    _label, columns = GALLERY_ORDERS[order]
    needed = {column.removeprefix("-") for column in columns} & _SORTED_BY.keys()
    needed -= persons.query.annotations.keys()
    return persons.alias(**{name: _SORTED_BY[name]() for name in needed}).order_by(*columns)


def _nameless() -> Case:
    return Case(When(name_key="", then=1), default=0)


def _doubt_count() -> Case:
    """Return an annotation that counts open doubts; few have any, so only theirs are counted."""
    theirs = Doubt.objects.filter(face_image__person=OuterRef("pk")).order_by()
    counted = theirs.values("face_image__person").annotate(count=Count("pk")).values("count")
    return Case(When(pk__in=_doubtful(), then=Subquery(counted)), default=Value(0))


def _changed_at() -> Greatest:
    """Return an annotation with the time of the last change, of the details or by a new picture."""
    newest = pictures_of_each().order_by("-pk").values("created_at")[:1]
    return Greatest("updated_at", Coalesce(Subquery(newest), "updated_at"))


_SORTED_BY: Final[Mapping[str, Callable[[], Any]]] = {
    "is_nameless": _nameless,
    "doubt_count": _doubt_count,
    "changed_at": _changed_at,
    "picture_count": lambda: count_of(pictures_of_each()),
}


def _annotated() -> QuerySet[Person]:
    return with_pictures(Person.objects.annotate(doubt_count=_doubt_count()))


def shown_persons(keys: Sequence[int]) -> list[Person]:
    """Return the persons with these primary keys in this order, annotated for a list.

    That is by `with_pictures` and with `doubt_count`; who is gone is left out.
    """
    found = _annotated().in_bulk(keys)
    return [found[key] for key in keys if key in found]


def shown_slice(persons: QuerySet[Person], order: str) -> QuerySet[Person]:
    """Return a slice of `sorted_persons`, in the same order, annotated as by `shown_persons`."""
    return sorted_persons(_annotated().filter(pk__in=persons.values("pk")), order)


def suggested_persons(text: str, limit: int) -> list[Person]:
    """Return up to `limit` persons whom somebody who types the text may mean, likeliest first.

    They match `holds_words`. First comes who has the text as id, then whose id or name begins with
    it, then who has a name with a word that does. They are annotated as by `shown_persons`.
    """
    words, key = folded(text), letters_and_digits(text)
    if not words:
        return []
    begins = Q(id_key__startswith=key) | Q(name_key__startswith=words)
    likeliness = Case(
        When(id_key=key, then=0),
        When(begins, then=1),
        When(name_key__contains=f" {words}", then=2),
        default=3,
    )
    found = Person.objects.filter(holds_words(text))
    order = (likeliness, _nameless(), "name_key", "id_order", "person_id")
    return shown_persons(list(found.order_by(*order).values_list("pk", flat=True)[:limit]))
