"""Take back an act that the trash keeps: a deletion, a move, a merge, an import, a change of many
people, a settlement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from enrollment import index, journal
from enrollment.corrections.corrections import delete_person, locked_persons, move
from enrollment.corrections.restoration import (
    Restored,
    present_owners,
    relink,
    restore,
    restore_person,
    restore_resemblances,
    several_persons,
)
from enrollment.corrections.trash import put_away
from enrollment.corrections.trash_items import Kind, held, in_parts, lock_persons_of
from enrollment.enrolling import give_purposes_back, move_waiting
from enrollment.exceptions import NotUndoable
from enrollment.models import (
    Consent,
    DistinctPair,
    Doubt,
    FaceImage,
    Feedback,
    ImportJob,
    MergedId,
    Person,
    Probe,
    TrashedPart,
    TrashItem,
    from_lines,
    new_item,
)
from recognition.exceptions import RecognitionError

_FIELDS: Final = {each.name: each for each in Person._meta.fields}


def undo(item: TrashItem, *, person_id: str | None = None) -> Restored:
    """Take back the act of the item, which is gone then.

    `person_id` is another id for a person who comes back. Raise `NotInTrash` when the item is gone,
    `PersonExists` when somebody else has the id by now, and `NotUndoable` when persons or pictures
    that it takes are not there any more.
    """
    match item.kind:
        case Kind.MOVE:
            return _undo_move(item)
        case Kind.MERGE:
            return _undo_merge(item, person_id)
        case Kind.IMPORT:
            return _undo_import(item)
        case Kind.SETTLED:
            return _undo_settled(item)
        case Kind.CHANGE:
            return _undo_change(item)
    return restore(item, person_id=person_id)


def undo_each(items: Sequence[TrashItem]) -> list[Restored | RecognitionError | ValidationError]:
    """Take back several acts in one transaction, which takes far less time than one by one.

    Where one fails stands its error, and the others are taken back.
    """
    done: list[Restored | RecognitionError | ValidationError] = []
    with journal.changes(), index.together():
        lock_persons_of([item.pk for item in items])
        for item in items:
            try:
                done.append(undo(item))
            except (RecognitionError, ValidationError) as error:
                done.append(error)
    return done


def _journal(
    item: TrashItem, taker: Person | None, pictures: list[int], owners: Iterable[Person]
) -> None:
    """Journal that the act of the item was undone, of which the owners have pictures back."""
    facts = {"undone": item.kind, **journal.pictures(pictures)}
    others = [("", owner) for owner in owners]
    journal.record(journal.Action.UNDONE, person=taker, persons=others, facts=facts)


def _undo_move(item: TrashItem) -> Restored:
    with journal.changes():
        item = held(item.pk)
        parts = list(item.parts.values_list("picture_pk", "person_pk"))
        owners = present_owners({item.taker_pk or 0, *(owner for _picture, owner in parts)})
        taker = owners[item.taker_pk or 0]
        by_owner = defaultdict(list)
        for picture, owner in parts:
            by_owner[owner].append(picture or 0)
        back = []
        for owner, pictures in by_owner.items():
            back += _move_back(pictures, taker, owners[owner])
        if not back:
            raise NotUndoable(_not_there(taker))
        relink(item)
        restore_resemblances(item)
        _raise_again(item)
        _journal(item, taker, back, [owners[owner] for owner in by_owner])
        item.delete()
        if item.facts.get("is_new") and not taker.face_images.exists():
            delete_person(taker)
    return Restored([owners[owner] for owner in by_owner], back)


def _move_back(pictures: list[int], taker: Person, owner: Person) -> list[int]:
    """Move those of the pictures back that the taker still has; return their ids."""
    back = []
    for some in in_parts(pictures):
        back += move(FaceImage.objects.filter(pk__in=some, person=taker), owner)
    return back


def _not_there(taker: Person) -> str:
    message = gettext("%(person)s has none of these pictures any more, so nothing was moved back.")
    return message % {"person": taker}


def _undo_merge(item: TrashItem, person_id: str | None) -> Restored:
    with journal.changes():
        item = held(item.pk)
        kept = present_owners([item.taker_pk or 0])[item.taker_pk or 0]
        parts = list(item.parts.filter(picture_pk=None).order_by("pk"))
        if person_id is not None and len(parts) > 1:
            raise NotUndoable(several_persons())
        restored = Restored([])
        for part in parts:
            person, back = _take_out(item, part, kept, person_id)
            restored.persons.append(person)
            restored.pictures += back
        relink(item)
        restore_resemblances(item)
        _give_details_back(kept, item.facts.get("kept", {}))
        _journal(item, kept, restored.pictures, restored.persons)
        item.delete()
    return restored


def _take_out(
    item: TrashItem, part: TrashedPart, kept: Person, person_id: str | None
) -> tuple[Person, list[int]]:
    """Make the person of the part somebody of their own again; return them and their pictures."""
    # Items of version 2.0 hold one person, and say of them what others say of each.
    facts = item.facts.get("of", {}).get(str(part.person_pk), item.facts)
    MergedId.objects.filter(former_pk=part.person_pk, taker=kept).delete()
    person = restore_person(part, person_id)
    earlier = facts.get("merged_ids", ())
    MergedId.objects.filter(former_pk__in=earlier, taker=kept).update(taker=person)
    theirs = item.parts.filter(person_pk=part.person_pk).exclude(picture_pk=None)
    cover = person.cover_id
    pictures = [picture or 0 for picture in theirs.values_list("picture_pk", flat=True)]
    back = _move_back(pictures, kept, person)
    Person.objects.filter(pk=person.pk).update(cover=cover if cover in back else None)
    consents = Consent.objects.filter(pk__in=facts.get("consents", ()), person=kept)
    consents.update(person=person)
    said = Feedback.objects.filter(pk__in=facts.get("feedback", ()), person=kept)
    said.update(person=person)
    waiting, source, to = facts.get("waiting", ()), kept.pk, person.pk

    def give_waiting_back() -> None:
        move_waiting(source, to, waiting)

    transaction.on_commit(give_waiting_back, robust=True)
    return person, back


def _give_details_back(kept: Person, merge: dict[str, dict[str, Any]]) -> None:
    """Set what the merge changed of the kept person as it was, unless it was changed again."""
    if former := _former_values(kept, merge):
        for name, value in former.items():
            setattr(kept, name, value)
        kept.save(update_fields=[*former, "updated_at"])


def _former_values(person: Person, change: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what the change replaced of the person, without what was changed again since."""
    after = change.get("after", {})
    return {
        name: _FIELDS[name].to_python(change["before"][name])
        for name, value in after.items()
        if getattr(person, name) == _FIELDS[name].to_python(value)
    }


def _undo_import(item: TrashItem) -> Restored:
    """Put what the import enrolled into the trash: pictures, and persons who are new with them."""
    ours = FaceImage.objects.filter(upload_key__startswith=f"{item.facts['key']}:")
    with journal.changes():
        item = held(item.pk)
        ImportJob.objects.filter(undo=item).update(undone_at=timezone.now())
        if not ours.exists():
            raise NotUndoable(gettext("None of the imported pictures is there any more."))
        return _take_back(item, ours, Person.objects.filter(created_at__gte=item.created_at))


def _undo_settled(item: TrashItem) -> Restored:
    """Take back what was settled in the inbox: what is still kept of the faces waits there again."""
    with journal.changes():
        item = held(item.pk)
        facts, made = item.facts, Person.objects.none()
        ours = FaceImage.objects.filter(pk__in=facts.get("pictures", ()))
        if facts.get("is_new"):
            made = Person.objects.filter(pk=item.taker_pk or 0)
        faces = Probe.objects.filter(settled_in=item.pk)
        back = faces.update(settled_at=None, settled_as="", settled_by="", settled_in=None)
        back += _raise_again(item)
        back += DistinctPair.objects.filter(pk__in=facts.get("pairs", ())).delete()[0]
        Feedback.objects.filter(pk__in=facts.get("feedback", ())).delete()
        if not back and not ours.exists():
            raise NotUndoable(gettext("Nothing of what was settled is kept any more."))
        return _take_back(item, ours, made)


def _raise_again(item: TrashItem) -> int:
    """Raise the doubts again that the act dismissed; return how many."""
    its = Q(pk__in=item.facts.get("doubts", ()))
    if at := item.facts.get("dismissed_at"):
        its |= Q(face_image__in=item.facts["doubted"], dismissed_at=at)
    return Doubt.with_dismissed.filter(its).update(dismissed_at=None, dismissed_by="")


def _take_back(item: TrashItem, ours: QuerySet[FaceImage], made: QuerySet[Person]) -> Restored:
    """Put the pictures into the trash, with those of their persons who were `made` with them."""
    owners = locked_persons(set(ours.values_list("person_id", flat=True)))
    others = FaceImage.objects.filter(person=OuterRef("pk")).exclude(pk__in=ours.values("pk"))
    new = list(made.filter(~Exists(others), pk__in=owners).order_by("pk"))
    ids = list(ours.values_list("pk", flat=True))
    _journal(item, None, ids, owners.values())
    item.delete()
    kind = Kind.PERSON if new else Kind.PICTURES
    if ids and (undone := new_item(kind, item.label, new)):
        put_away(undone, new, ours)
    return Restored([], ids)


def _undo_change(item: TrashItem) -> Restored:
    """Set what a change of many people changed as it was, of those who still have it so."""
    with journal.changes():
        item = held(item.pk)
        parts = {part.person_pk: part for part in item.parts.all()}
        there = Person.objects.select_for_update().filter(pk__in=parts).order_by("pk")
        persons = list(there)
        if not persons:
            raise NotUndoable(gettext("None of these people is there any more."))
        after, alike = item.facts["after"], defaultdict(list)
        for person in persons:
            for row in from_lines(parts[person.pk].content):
                before = {name: getattr(row, name) for name in after}
                former = _former_values(person, {"before": before, "after": after})
                alike[tuple(former.items())].append(person.pk)
        for values, keys in alike.items():  # many had the same before
            if values:
                rows = Person.objects.filter(pk__in=keys)
                rows.update(**dict(values), updated_at=timezone.now())
        give_purposes_back(item.facts)
        _journal(item, None, [], persons)
        item.delete()
    return Restored(persons)
