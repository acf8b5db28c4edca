"""Warn about a new person who may be enrolled already, under another id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from django.db.models import QuerySet

from enrollment.models import Person
from recognition.sentences import gettext

MOST_SIMILAR_PERSONS: Final = 3  # most persons named with a similar id, and with the same name


def easily_mistaken(person: Person, planned: Iterable[Person] = ()) -> list[str]:
    """Return warnings about persons with an almost equal id or the same name.

    The person may be unsaved, if its computed columns are filled. `planned` are further unsaved persons.
    """
    others = Person.objects.exclude(person_id=person.person_id)
    id_alike = gettext(
        "The id '%(person_id)s' differs only in punctuation, accents or case from that of "
        "%(other)s. If they are one person, merge them."
    )
    same_name = gettext("%(other)s has the same name. If they are one person, merge them.")
    planned = list(planned)
    alike = _first(
        others.filter(id_key=person.id_key),
        (other for other in planned if other.id_key == person.id_key),
    )
    texts = [id_alike % {"person_id": person.person_id, "other": other} for other in alike]
    if person.name_key:
        told = {other.person_id for other in alike}
        namesakes = _first(
            others.filter(name_key=person.name_key).exclude(person_id__in=told),
            (
                other
                for other in planned
                if other.name_key == person.name_key and other.person_id not in told
            ),
        )
        texts += [same_name % {"other": other} for other in namesakes]
    return texts


def _first(saved: QuerySet[Person], planned: Iterable[Person]) -> list[Person]:
    return [*saved[:MOST_SIMILAR_PERSONS], *planned][:MOST_SIMILAR_PERSONS]
