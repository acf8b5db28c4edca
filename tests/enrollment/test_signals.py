"""What is requested of Milvus when rows are saved and deleted, and when it happens."""

from __future__ import annotations

import pytest
from django.core import serializers
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import transaction

from enrollment.index import indexing, removals
from enrollment.models import FaceEmbedding, FaceImage, Person, Removal
from tests.enrollment.gallery import enroll, found, stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]


class Undo(Exception):
    pass


def test_picture_saved_by_the_orm_is_found_after_the_commit(commits, picture):
    person = Person.objects.create(person_id="ana")
    with commits():
        face_image = FaceImage(person=person)
        face_image.image.save("x.jpg", ContentFile(picture))
        assert face_image.embeddings.get().status == "pending"
        assert stored() == []
    assert face_image.embeddings.get().status == "indexed"
    assert found(picture) == ["ana"]


def test_rollback_leaves_milvus_and_files_untouched(commits, picture, draw_picture, settings):
    person = enroll("ana", picture).person
    before = stored()
    with commits(), pytest.raises(Undo), transaction.atomic():
        person.person_id = "bia"
        person.save()
        FaceImage(person=person).image.save("x.jpg", ContentFile(draw_picture(seed=3)))
        person.face_images.first().delete()
        person.delete()
        raise Undo
    assert stored() == before
    assert found(picture) == ["ana"]
    assert not Removal.objects.exists()
    kept = Person.objects.get().face_images.get()
    assert kept.image.storage.exists(kept.image.name)


def test_deleted_person_takes_rows_files_and_vectors(commits, draw_picture, settings):
    person = enroll("ana", draw_picture(seed=1), draw_picture(seed=2)).person
    enroll("bia", draw_picture(seed=3))
    with commits():
        person.delete()
    assert [row.person_id for row in stored()] == ["bia"]
    assert FaceEmbedding.objects.count() == 1
    assert not Removal.objects.exists()
    assert len([path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]) == 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of deletions that each run of `remove_deleted` applied."""
    applied: list[int] = []
    apply = removals.apply_deletions
    monkeypatch.setattr(removals, "apply_deletions", lambda: applied.append(apply()))
    return applied


def test_milvus_is_asked_once_for_many_deletions(commits, asked, draw_picture):
    """Each vector used to be deleted by its own call: with a dead server n timeouts."""
    people = [enroll(name, *(draw_picture(seed=n) for n in range(4))).person for name in "ab"]
    for person in people:
        with commits():
            person.delete()
    assert asked == [4, 4]
    assert stored() == []


def test_milvus_is_asked_once_whatever_savepoints_are_rolled_back(commits, asked, draw_picture):
    """The rolled-back savepoint may be the first, one in the middle, or one around them."""
    pictures = [draw_picture(seed=n) for n in range(5)]
    one, two, three, four, five = enroll("ana", *pictures).person.face_images.order_by("pk")
    with commits():
        with pytest.raises(Undo), transaction.atomic():
            one.delete()
            with transaction.atomic():
                two.delete()
            raise Undo
        with transaction.atomic():
            three.delete()
            with pytest.raises(Undo), transaction.atomic():
                four.delete()
                raise Undo
        five.delete()
    assert asked == [2]
    assert [row.image_path for row in stored()] == ["0.jpg", "1.jpg", "3.jpg"]


@pytest.mark.django_db(transaction=True)
def test_real_transactions_ask_once_each(asked, draw_picture):
    person = enroll("ana", *(draw_picture(seed=n) for n in range(4))).person
    one, two, three, four = person.face_images.order_by("pk")
    with pytest.raises(Undo), transaction.atomic():
        one.delete()
        raise Undo
    assert asked == []
    with transaction.atomic():
        two.delete()
        three.delete()
    assert asked == [2]
    four.delete()
    assert asked == [2, 1]
    assert [row.image_path for row in stored()] == ["0.jpg"]


def test_hook_that_fails_takes_no_later_one_along(commits, draw_picture, monkeypatch):
    """Django 5.2 logs the `__qualname__` of a failed hook, which a partial lacks; later hooks were
    lost."""
    person = enroll("ana", *(draw_picture(seed=n) for n in range(3))).person
    files = {picture.image.name for picture in person.face_images.all()}
    tried = set()

    def fail(_storage: FileSystemStorage, name: str) -> None:
        tried.add(name)
        raise OSError("The disk does not answer.")

    monkeypatch.setattr(FileSystemStorage, "delete", fail)
    with commits():
        person.delete()
    assert tried == files
    assert stored() == []

    monkeypatch.setattr(indexing.index_embeddings.__class__, "enqueue", lambda *_: 1 / 0)
    ran = []
    with commits():
        person = Person.objects.create(person_id="bia")
        FaceImage(person=person).image.save("x.jpg", ContentFile(draw_picture(seed=4)))
        transaction.on_commit(lambda: ran.append("later"), robust=True)
    assert ran == ["later"]


def test_deletion_after_a_rolled_back_one_still_reaches_milvus(commits, draw_picture):
    one, two = enroll("ana", draw_picture(seed=1), draw_picture(seed=2)).person.face_images.all()
    with commits():
        with pytest.raises(Undo), transaction.atomic():
            one.delete()
            raise Undo
        two.delete()
    assert [row.image_path for row in stored()] == ["0.jpg"]


@pytest.mark.parametrize("new_id", ["bia", 'o\'hara "100%"', "x" * 200, "李雷"])
def test_rename_reaches_milvus(commits, draw_picture, new_id):
    person = enroll("ana", draw_picture(seed=1), draw_picture(seed=2)).person
    enroll("caio", draw_picture(seed=3))
    with commits():
        person.person_id = new_id
        person.save()
    assert [row.person_id for row in stored()] == [new_id, new_id, "caio"]
    assert set(FaceEmbedding.objects.values_list("status", flat=True)) == {"indexed"}


def test_rename_by_the_object_that_made_the_person_reaches_milvus(commits, picture):
    """The old id used to be known only to objects read from SQL."""
    person = Person.objects.create(person_id="ana")
    enroll("ana", picture)
    with commits():
        person.person_id = "bia"
        person.save(update_fields=["person_id"])
    assert [row.person_id for row in stored()] == ["bia"]


def test_rename_tried_again_after_a_rollback_reaches_milvus(commits, picture):
    person = enroll("ana", picture).person
    with commits():
        with pytest.raises(Undo), transaction.atomic():
            person.person_id = "bia"
            person.save()
            raise Undo
        person.save()
    assert [row.person_id for row in stored()] == ["bia"]


def test_saving_a_person_under_the_same_id_asks_nothing(
    django_capture_on_commit_callbacks, picture
):
    person = enroll("ana", picture).person
    with django_capture_on_commit_callbacks() as callbacks:
        person.notes = "tall"
        person.save()
    assert callbacks == []
    assert FaceEmbedding.objects.get().status == "indexed"


def test_picture_moved_to_another_person_moves_in_milvus(commits, draw_picture):
    picture = draw_picture(seed=1)
    moved = enroll("ana", picture).person.face_images.get()
    bia = enroll("bia", draw_picture(seed=2)).person
    with commits():
        moved.person = bia
        moved.save()
    assert {row.person_id for row in stored()} == {"bia"}
    assert set(found(picture)) == {"bia"}


def test_fixtures_are_loaded_as_they_are(django_capture_on_commit_callbacks, picture):
    enroll("ana", picture)
    rows = [*Person.objects.all(), *FaceImage.objects.all()]
    dump = serializers.serialize("json", rows).replace('"ana"', '"bia"')
    before = stored()
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        for loaded in serializers.deserialize("json", dump):
            loaded.save()
    assert callbacks == []
    assert Person.objects.get().person_id == "bia"
    assert FaceEmbedding.objects.count() == 1
    assert stored() == before
