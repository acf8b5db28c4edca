"""Merging, moving and renaming: the state of SQL and Milvus afterwards, also after a failure."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection, connections
from django.db.utils import DatabaseError

from enrollment import index
from enrollment.corrections import corrections
from enrollment.exceptions import PersonExists, PersonNotFound, PictureNotFound
from enrollment.gallery import find_persons
from enrollment.models import FaceEmbedding, FaceImage, Person
from tests.enrollment.gallery import enroll, found, stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]


@pytest.fixture
def ana(draw_picture) -> Person:
    """Two pictures."""
    return enroll("ana", draw_picture(seed=1), draw_picture(seed=2)).person


@pytest.fixture
def bia(draw_picture) -> Person:
    """One picture, a name, notes."""
    person = enroll("bia", draw_picture(seed=3), name="Bia").person
    person.notes = "from the gate"
    person.save()
    return person


def ids(person: Person) -> list[int]:
    return list(person.face_images.values_list("pk", flat=True))


def owners() -> list[str]:
    """Return the persons of the vectors in Milvus."""
    return sorted(row.person_id for row in stored())


def test_merged_person_is_gone_and_the_vectors_follow(commits, ana, bia, draw_picture):
    pictures = ids(ana) + ids(bia)
    with commits():
        assert corrections.merge_persons(ana, bia).pictures == 1
    kept = Person.objects.get()
    assert (kept.pk, kept.person_id, kept.name) == (ana.pk, "ana", "Bia")
    assert kept.notes == "+ Bia (bia)\nfrom the gate"
    assert ids(kept) == pictures
    assert owners() == ["ana", "ana", "ana"]
    assert set(found(draw_picture(seed=3))) == {"ana"}
    assert all(image.image.storage.exists(image.image.name) for image in FaceImage.objects.all())


def test_name_and_cover_of_the_kept_person_stay(commits, ana, bia):
    (cover,) = ids(bia)
    corrections.set_cover(bia, cover)
    with commits():
        corrections.merge_persons(bia, ana)
    kept = Person.objects.get()
    assert (kept.name, kept.cover_id) == ("Bia", cover)


def test_nobody_is_merged_with_themselves(ana):
    with pytest.raises(ValidationError):
        corrections.merge_persons(ana, Person.objects.get(pk=ana.pk))
    assert Person.objects.exists()


def test_a_person_who_is_gone_is_not_merged(ana, bia):
    Person.objects.get(pk=bia.pk).delete()
    for kept, merged in ((ana, bia), (bia, ana)):
        with pytest.raises(PersonNotFound):
            corrections.merge_persons(kept, merged)
    assert len(ids(ana)) == 2


def test_merge_that_fails_half_way_changes_nothing(ana, bia):
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER full BEFORE DELETE ON enrollment_person "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    with pytest.raises(DatabaseError, match="disk full"):
        corrections.merge_persons(ana, bia)
    assert (len(ids(ana)), len(ids(bia))) == (2, 1)
    assert set(FaceEmbedding.objects.values_list("status", flat=True)) == {"indexed"}
    assert owners() == ["ana", "ana", "bia"]


def test_merge_cut_off_after_the_commit_is_named_and_mended(ana, bia, draw_picture):
    """Like a kill right after the commit: none of its hooks has run."""
    moved = FaceEmbedding.objects.get(face_image__person=bia)
    corrections.merge_persons(ana, bia)
    moved.refresh_from_db()
    assert moved.status == "pending"
    assert owners() == ["ana", "ana", "bia"]
    assert found(draw_picture(seed=3))[0] == "ana"  # the answer comes from SQL
    call_command("reindex", "--no-progress")
    assert owners() == ["ana", "ana", "ana"]
    moved.refresh_from_db()
    assert moved.status == "indexed"


def test_milvus_away_leaves_rows_that_say_so(commits, ana, bia, settings, tmp_path):
    working = settings.RECOGNITION
    (tmp_path / "file").write_text("no database")
    settings.RECOGNITION = working | {"MILVUS_URI": str(tmp_path / "file")}
    with commits():
        corrections.merge_persons(ana, bia)
    assert FaceEmbedding.objects.get(status="failed").face_image.person_id == ana.pk
    settings.RECOGNITION = working
    call_command("reindex", "--no-progress")
    assert owners() == ["ana", "ana", "ana"]


def test_picture_moves_to_another_person(commits, ana, bia):
    first, second = ids(ana)
    with commits():
        assert corrections.move_pictures([first], bia).pictures == 1
    assert (ids(ana), ids(bia)) == ([second], [first, *ids(bia)[1:]])
    assert owners() == ["ana", "bia", "bia"]


def test_picture_moves_to_a_new_person(commits, ana):
    first, second = ids(ana)
    with commits():
        person = corrections.move_to_new_person([first, second], " carla ", name="Carla").owner
    assert (person.person_id, person.name, ids(person)) == ("carla", "Carla", [first, second])
    assert owners() == ["carla", "carla"] and ids(ana) == []


def test_new_person_with_a_taken_id_moves_nothing(ana, bia):
    with pytest.raises(PersonExists):
        corrections.move_to_new_person(ids(ana), "bia")
    assert len(ids(ana)) == 2


def test_moving_what_is_there_already_counts_nothing(ana):
    assert corrections.move_pictures(ids(ana), ana).pictures == 0
    assert set(FaceEmbedding.objects.values_list("status", flat=True)) == {"indexed"}


def test_missing_picture_moves_none_of_the_others(ana, bia):
    with pytest.raises(PictureNotFound):
        corrections.move_pictures([*ids(ana), 10_000], bia)
    assert len(ids(ana)) == 2


def test_moved_cover_is_a_cover_no_more(commits, ana, bia):
    first = ids(ana)[0]
    corrections.set_cover(ana, first)
    assert Person.objects.get(pk=ana.pk).cover_id == first
    with commits():
        corrections.move_pictures([first], bia)
    assert Person.objects.get(pk=ana.pk).cover is None


def test_cover_moved_in_the_admin_is_a_cover_no_more(commits, ana, bia):
    picture = ana.face_images.first()
    corrections.set_cover(ana, picture.pk)
    picture.person = bia
    with commits():
        picture.save()
    assert Person.objects.get(pk=ana.pk).cover is None


def test_cover_is_one_of_ones_own_pictures(ana, bia):
    with pytest.raises(PictureNotFound):
        corrections.set_cover(ana, ids(bia)[0])


def test_lists_show_the_cover_or_else_the_first_picture(ana, bia):
    second = ids(ana)[1]
    corrections.set_cover(ana, second)
    shown = {person.person_id: person.shown_picture for person in find_persons()}
    assert shown == {"ana": second, "bia": ids(bia)[0]}
    FaceImage.objects.get(pk=second).delete()
    assert find_persons("ana").get().shown_picture == ids(ana)[0]


def test_new_id_reaches_milvus(commits, ana):
    with commits():
        corrections.change_person(ana, person_id=" 123/45 ", name="Ana")
    assert owners() == ["123/45", "123/45"]
    assert Person.objects.get().name == "Ana"


def test_taken_id_is_refused_by_name(ana, bia):
    with pytest.raises(PersonExists, match="'bia'"):
        corrections.change_person(ana, person_id="bia")
    with pytest.raises(PersonExists, match="'bia'"):
        corrections.create_person("bia")
    assert Person.objects.filter(person_id="ana").exists()


@pytest.mark.parametrize("person_id", ["", "  ", "x" * 201, "a\0b"])
def test_id_that_cannot_be_one_is_refused(ana, person_id):
    with pytest.raises(ValidationError):
        corrections.change_person(ana, person_id=person_id)
    with pytest.raises(ValidationError):
        corrections.create_person(person_id)


@pytest.mark.django_db(transaction=True)
def test_corrections_at_once_leave_every_picture_with_somebody(draw_picture):
    """Two operators merge the same persons, both ways, while pictures come in."""
    people = [enroll(name, draw_picture(seed=n)).person for n, name in enumerate("abc")]
    start = threading.Barrier(3, timeout=60)

    def alone(work):
        def run() -> None:
            try:
                start.wait()
                work()
            except PersonNotFound:
                pass  # the other one was faster
            finally:
                connections.close_all()

        return run

    tasks = [
        alone(lambda: corrections.merge_persons(people[0], people[1])),
        alone(lambda: corrections.merge_persons(people[1], people[0])),
        alone(lambda: [enroll("b", draw_picture(seed=seed)) for seed in (11, 12)]),
    ]
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()
    assert FaceImage.objects.count() == 5
    truth = FaceEmbedding.objects.values_list("pk", "face_image__person__person_id", "status")
    assert {(row.id, row.person_id, "indexed") for row in stored()} == set(truth)


def test_many_pictures_move_in_parts(commits, ana, bia, monkeypatch):
    monkeypatch.setattr(corrections, "IDS_A_QUERY", 1)
    asked = []
    monkeypatch.setattr(index, "request_upsert", lambda rows: asked.append(rows.count()))
    assert corrections.merge_persons(bia, ana).pictures == 2
    assert asked == [1, 1]
