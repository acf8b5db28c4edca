"""What is deleted can be restored whole for some days, and is erased when they are over."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from enrollment import index
from enrollment.corrections import (
    create_person,
    delete_person,
    delete_pictures,
    empty_trash,
    erase_item,
    erase_person,
    restore,
    set_cover,
    trashed_person,
)
from enrollment.exceptions import NotInTrash, NotUndoable, PersonExists
from enrollment.gallery.selectors import search_gallery
from enrollment.judging import dismiss_doubts
from enrollment.models import (
    Doubt,
    FaceEmbedding,
    FaceImage,
    Person,
    Removal,
    SearchEntry,
    TrashedPart,
    TrashItem,
)
from enrollment.upkeep import backlog, reconciliation, retention
from recognition.embedding import embed_uploads
from tests.enrollment.gallery import MODEL, add_vectors, enroll, stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]


@pytest.fixture
def ana(draw_picture) -> Person:
    """Two pictures, the second of which is the cover, and a name."""
    person = enroll("ana", draw_picture(seed=1), draw_picture(seed=2), name="Ana").person
    set_cover(person, person.face_images.last().pk)
    return Person.objects.get(pk=person.pk)


@pytest.fixture
def bia(draw_picture) -> Person:
    return enroll("bia", draw_picture(seed=3)).person


def answers(*contents: bytes) -> list[Any]:
    """Return what searches for these pictures answer: ids, similarities, persons, in order."""
    _crops, probe = embed_uploads(list(contents), MODEL)
    return [
        [(hit.id, hit.similarity, hit.person.pk, hit.person.person_id) for hit in hits]
        for hits in search_gallery(probe, 10)
    ]


def rows() -> dict[str, Any]:
    """Return every row of the gallery with every value, but when vectors were copied and judged."""
    varying = {"updated_at", "indexed_at", "judged_at"}
    return {
        model.__name__: [
            {name: value for name, value in row.items() if name not in varying}
            for row in model._base_manager.order_by("pk").values()
        ]
        for model in (Person, FaceImage, FaceEmbedding, SearchEntry)
    }


def files(settings) -> list[Path]:
    return sorted(path for path in Path(settings.MEDIA_ROOT).rglob("*") if path.is_file())


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Nothing may be embedded, detected, or fetched."""

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("a network")

    monkeypatch.setattr("recognition.embedding.get_queue", refuse)
    for name in ("crop_upload", "crop_again", "read_picture"):
        monkeypatch.setattr(index.indexing, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_a_deleted_person_is_in_no_list_and_no_search(ana, bia, commits, draw_picture, settings):
    with commits():
        done = delete_person(ana)
    assert (done.pictures, done.undo.pictures, str(done.undo.label)) == (2, 2, "Ana (ana)")
    assert {hit[3] for hit in answers(draw_picture(seed=1))[0]} == {"bia"}
    assert {row.person_id for row in stored()} == {"bia"}
    assert list(Person.objects.values_list("person_id", flat=True)) == ["bia"]
    assert FaceImage.objects.count() == FaceEmbedding.objects.count() == 1
    assert len(files(settings)) == 3 and not Removal.objects.exists()


def test_a_restored_person_is_as_before_without_any_network(
    ana, bia, commits, draw_picture, settings, request
):
    pictures = [draw_picture(seed=seed) for seed in (1, 2, 3)]
    SearchEntry.objects.create(channel="api", model=MODEL, person=ana, answers=1)
    before, found, names = rows(), answers(*pictures), files(settings)
    with commits():
        item = delete_person(ana).undo
    request.getfixturevalue("no_network")
    with commits():
        restored = restore(item)
    assert rows() == before and files(settings) == names
    request.getfixturevalue("monkeypatch").undo()
    assert answers(*pictures) == found
    assert [person.pk for person in restored.persons] == [ana.pk] and len(restored.pictures) == 2
    assert not TrashItem.objects.exists() and not TrashedPart.objects.exists()
    assert reconciliation.reconcile(mend=False).found == {}


def test_pictures_come_back_to_their_person_and_as_the_cover(ana, bia, commits, draw_picture):
    pictures = [draw_picture(seed=seed) for seed in (1, 2, 3)]
    cover = ana.cover_id
    before, found = rows(), answers(*pictures)
    with commits():
        done = delete_pictures(ana, [cover])
    ana.refresh_from_db()
    assert done.pictures == 1 and ana.cover is None and ana.face_images.count() == 1
    with commits():
        restore(done.undo)
    assert rows() == before and answers(*pictures) == found


def test_doubts_come_back_dismissed_ones_too(commits, draw_picture):
    ana, bia = (enroll(name, draw_picture(seed=1)).person for name in ("ana", "bia"))

    def doubts() -> list[tuple[Any, ...]]:
        values = ("face_image", "code", "other", "dismissed_by")
        return sorted(Doubt.with_dismissed.values_list(*values), key=str)

    dismiss_doubts(FaceImage.objects.filter(person=bia), "boss")
    before = doubts()
    assert before
    with commits():
        item = delete_person(ana).undo
    assert not Doubt.with_dismissed.filter(other__person=ana.pk).exists()
    with commits():
        restore(item)
    assert doubts() == before


def test_restoring_after_the_id_was_given_to_somebody_else(ana, commits, draw_picture):
    with commits():
        item = delete_person(ana).undo
        other = create_person("ana", name="Another")
        with pytest.raises(PersonExists, match="Give another id"):
            restore(item)
    with commits():
        restored = restore(item, person_id=" ana-2 ")
    assert restored.persons[0].person_id == "ana-2" and restored.persons[0].pk == ana.pk
    assert {row.person_id for row in stored()} == {"ana-2"}
    assert Person.objects.get(pk=other.pk).name == "Another"


def test_pictures_of_somebody_in_the_trash_wait_for_them(ana, commits):
    first = ana.face_images.first().pk
    with commits():
        pictures = delete_pictures(ana, [first]).undo
        person = delete_person(ana).undo
    with pytest.raises(NotUndoable, match="ana is in the trash"):
        restore(pictures)
    with commits():
        restore(person)
        restore(pictures)
    assert ana.face_images.count() == 2


def test_an_item_is_restored_once(ana):
    item = delete_person(ana).undo
    restore(item)
    with pytest.raises(NotInTrash):
        restore(item)


def test_when_its_days_are_over_it_is_erased(ana, bia, commits, settings, monkeypatch):
    monkeypatch.setattr(backlog.connections, "close_all", lambda: None)  # the test's own
    with commits():
        item = delete_person(ana).undo
    assert backlog.BacklogThread()._pass(timezone.now()) == backlog.PAUSE
    assert TrashItem.objects.exists() and len(files(settings)) == 3
    late = item.created_at - timedelta(days=settings.TRASH_DAYS)
    TrashItem.objects.update(created_at=late, erase_at=timezone.now())
    with pytest.raises(NotInTrash):
        restore(item)
    with commits():
        assert backlog.BacklogThread()._pass(timezone.now()) == backlog.PAUSE
    assert not TrashItem.objects.exists() and len(files(settings)) == 1


def test_fewer_days_hold_for_what_is_in_the_trash(ana, settings):
    delete_person(ana)
    TrashItem.objects.update(created_at=timezone.now() - timedelta(days=3))
    assert empty_trash() == 0
    settings.TRASH_DAYS = 2
    assert empty_trash() == 1


def test_nobody_is_kept_longer_than_their_last_day(ana):
    ana.keep_until = timezone.localdate()
    ana.save()
    item = delete_person(ana).undo
    assert item.erase_at <= timezone.now() + timedelta(days=1)


def test_who_is_due_is_erased_at_once(ana, settings, commits):
    Person.objects.filter(pk=ana.pk).update(keep_until=timezone.localdate() - timedelta(days=1))
    with commits():
        assert retention.delete_due_persons() == 1
    assert not TrashItem.objects.exists() and files(settings) == []


def test_without_days_nothing_is_kept(ana, settings, commits):
    settings.TRASH_DAYS = 0
    with commits():
        assert delete_person(ana).undo is None
    assert not TrashItem.objects.exists() and files(settings) == []


def test_erasing_takes_along_what_the_trash_holds_of_them(ana, bia, commits, settings):
    first = ana.face_images.first().pk
    with commits():
        delete_pictures(ana, [first])
        kept = delete_pictures(bia, [bia.face_images.get().pk]).undo
        assert erase_person(ana) == 2
    assert list(TrashItem.objects.all()) == [kept]
    assert {part.person_pk for part in TrashedPart.objects.all()} == {bia.pk}
    assert len(files(settings)) == 1


def test_erasing_an_item_leaves_nothing(ana, commits, settings):
    with commits():
        item = delete_person(ana).undo
        erase_item(item.pk)
    assert not TrashItem.objects.exists() and not TrashedPart.objects.exists()
    assert files(settings) == [] and stored() == [] and not Removal.objects.exists()
    with pytest.raises(NotInTrash):
        trashed_person("ana")


def test_a_restore_before_the_vectors_were_removed_keeps_them(ana, draw_picture, commits):
    """As when Milvus was away: the removals still wait when the rows are there again."""
    found = answers(draw_picture(seed=1))
    item = delete_person(ana).undo
    assert Removal.objects.count() == 2
    with commits():
        restore(item)
    index.apply_deletions()
    assert len(stored()) == 2 and answers(draw_picture(seed=1)) == found


def test_a_deletion_that_fails_half_way_changes_nothing(ana):
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER full BEFORE DELETE ON enrollment_person "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    with pytest.raises(Exception, match="disk full"):
        delete_person(ana)
    assert ana.face_images.count() == 2 and not TrashItem.objects.exists()


def test_two_hundred_pictures_go_and_come_in_a_handful_of_queries(
    django_assert_max_num_queries,
):
    add_vectors({"ana": 200, "bia": 1})
    person = Person.objects.get(person_id="ana")
    with django_assert_max_num_queries(50):
        item = delete_person(person).undo
    assert (item.pictures, FaceEmbedding.objects.count()) == (200, 1)
    with django_assert_max_num_queries(60):
        restored = restore(item)
    assert len(restored.pictures) == 200 and FaceEmbedding.objects.count() == 201
