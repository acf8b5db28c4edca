"""Doubts about pictures: resemblance, quality, and when they stop an enrolment."""

from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from enrollment import gallery
from enrollment.corrections import corrections
from enrollment.enrolling import services
from enrollment.exceptions import DoubtfulIdentity, LowQuality
from enrollment.judging import doubts
from enrollment.models import Calibration, Doubt, FaceEmbedding, FaceImage, Person
from enrollment.upkeep import Kind, reconcile
from recognition.exceptions import VectorStoreUnavailable
from recognition.vector_store import VectorStore
from tests.enrollment.gallery import add_vectors, enroll, set_thresholds, stored
from tests.pictures import draw_picture

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("weights")]

Resemblance = Doubt.Resemblance
CROP = {"use_face_detection": False}  # no face is looked for, so none is missed


@pytest.fixture
def thresholds() -> None:
    set_thresholds()


@pytest.fixture
def no_search(monkeypatch):
    """A Milvus that stores vectors but answers no search."""

    def fail(*args):
        raise VectorStoreUnavailable("It does not answer.")

    monkeypatch.setattr(VectorStore, "search", fail)


def look(seed: int, quality: int = 75) -> bytes:
    """Return a face of person number `seed`; each JPEG quality gives another picture of it."""
    return draw_picture(seed=seed, quality=quality)


def codes(person_id: str) -> list[list[str]]:
    """Return the doubts about each of the person's pictures."""
    pictures = FaceImage.objects.filter(person__person_id=person_id).order_by("pk")
    return [[doubt.code for doubt in picture.doubts.all()] for picture in pictures]


# Identity


def test_right_pictures_raise_no_doubt(thresholds):
    enroll("ana", look(1), **CROP)
    enrollment = enroll("ana", look(1, 60), **CROP)
    enroll("bia", look(2), look(2, 60), **CROP)
    assert [(o.doubts, o.judged) for o in enrollment.outcomes] == [([], True)]
    assert not Doubt.objects.exists()


def test_picture_of_ana_under_bia_says_so(thresholds):
    ana = enroll("ana", look(1), name="Ana", **CROP).outcomes[0].face_image
    enroll("bia", look(2), **CROP)
    other, own = enroll("bia", look(1, 60), **CROP).outcomes[0].doubts
    assert (other.code, other.other) == (Resemblance.LOOKS_LIKE_SOMEONE_ELSE, ana)
    assert 0.97 < other.given <= 1 and other.expected == 0.94
    assert f"Ana (ana) (similarity {other.given:.3f}; less than 0.940 was" in other.message
    assert (own.code, own.other) == (Resemblance.UNLIKE_OWN_PICTURES, None)
    assert 0.2 < own.given < own.expected == 0.94
    assert codes("ana") == [[]]


def test_likeness_to_review_counts_where_the_own_pictures_are_less_alike():
    set_thresholds(match=0.9999, review=0.9)
    enroll("ana", look(1), **CROP)
    enroll("bia", look(2), **CROP)
    doubt, _unlike = enroll("bia", look(1, 50), **CROP).outcomes[0].doubts
    assert (doubt.code, doubt.expected) == (Resemblance.LOOKS_LIKE_SOMEONE_ELSE, 0.9)
    enroll("ana", look(1, 74), **CROP)
    assert codes("ana") == [[], []]


def test_first_picture_of_somebody_needs_a_match_with_somebody_else():
    set_thresholds(match=0.9999, review=0.9)
    enroll("ana", look(1), **CROP)
    enroll("bia", look(1, 50), **CROP)
    assert codes("bia") == [[]]
    Calibration.objects.update(match=0.95)
    (doubt,) = enroll("eva", look(1, 60), **CROP).outcomes[0].doubts
    assert (doubt.code, doubt.expected) == (Resemblance.LOOKS_LIKE_SOMEONE_ELSE, 0.95)


def test_pictures_that_come_together_see_each_other(thresholds):
    enroll("ana", look(1), look(2), **CROP)
    assert codes("ana") == [["unlike_own_pictures"]] * 2


def test_somebody_else_is_found_behind_many_own_pictures(monkeypatch):
    set_thresholds(match=0.9, review=0.8)
    monkeypatch.setattr(doubts, "FIRST_HITS", 2)
    enroll("bia", *(look(1, quality) for quality in (40, 50, 60, 70, 80)), **CROP)
    enroll("ana", look(1, 20), **CROP)
    assert codes("ana") == [["looks_like_someone_else"]]
    enroll("bia", look(1, 90), **CROP)
    assert codes("bia")[-1] == ["looks_like_someone_else"]


def test_the_same_file_again(thresholds):
    enroll("ana", look(1), **CROP)
    again = enroll("ana", look(1), **CROP).outcomes[0].doubts
    elsewhere = enroll("bia", look(1), **CROP).outcomes[0].doubts
    assert [doubt.code for doubt in again] == ["same_picture"]
    assert {doubt.code for doubt in elsewhere} == {"same_picture", "looks_like_someone_else"}
    assert "enrolled already, under ana." in elsewhere[0].message
    assert codes("ana")[0] == []


def test_without_thresholds_only_the_same_file_is_told(monkeypatch):
    monkeypatch.setattr("enrollment.gallery.weights.thresholds_of", lambda *weights: None)
    enroll("ana", look(1), look(2), **CROP)
    enroll("bia", look(1, 60), look(1), **CROP)
    assert codes("ana") == [[], []] and codes("bia") == [[], ["same_picture"]]
    assert not FaceImage.objects.filter(judged_at=None).exists()


def test_real_faces_are_told_apart(faces):
    set_thresholds(match=0.5, review=0.3)
    aaron, ann = (
        [photo.read_bytes() for photo in sorted((faces / name).iterdir())[:3]]
        for name in ("Aaron_Peirsol", "Ann_Veneman")
    )
    enroll("aaron", *aaron[:2])
    enroll("ann", *ann[:2], aaron[2])
    assert codes("aaron") == [[], []]
    assert codes("ann")[:2] == [[], []]
    assert {"looks_like_someone_else", "unlike_own_pictures"} <= set(codes("ann")[2])


def test_upgrade_has_what_was_doubted_for_less_judged_anew(thresholds):
    enroll("ana", look(1), **CROP)
    picture = enroll("bia", look(2), **CROP).outcomes[0].face_image
    ana = Person.objects.get(person_id="ana").face_images.get()
    picture.doubts.create(
        code=Resemblance.LOOKS_LIKE_SOMEONE_ELSE, given=0.3, expected=0.29, other=ana
    )
    migration = import_module("enrollment.migrations.0030_judge_lookalikes_anew")
    migration.judge_anew(apps, None)
    assert list(doubts.unjudged()) == [picture]
    doubts.judge([picture.pk])
    assert codes("ana") == codes("bia") == [[]]


# What becomes of a doubt


def test_doubts_go_with_either_picture(thresholds):
    enroll("ana", look(1), **CROP)
    enroll("bia", look(1, 60), look(1), **CROP)
    Person.objects.get(person_id="ana").delete()
    assert codes("bia") == [[], []]
    Person.objects.all().delete()
    assert not Doubt.objects.exists()


def test_moved_picture_is_judged_again(thresholds):
    (mine,) = enroll("ana", look(1), **CROP).outcomes
    enroll("bia", look(2), **CROP)
    (wrong,) = enroll("bia", look(1, 60), **CROP).outcomes
    corrections.move_pictures([wrong.face_image.pk], mine.face_image.person)
    assert codes("ana") == [[], []]
    assert FaceImage.objects.filter(judged_at=None).count() == 0


def test_picture_moved_while_it_is_judged_is_judged_again(thresholds, monkeypatch):
    (ana,) = enroll("ana", look(1), **CROP).outcomes
    (wrong,) = enroll("bia", look(1, 60), **CROP).outcomes
    compare = doubts.resemblances

    def compare_and_move(*args, **options):
        FaceImage.objects.filter(pk=wrong.face_image.pk).update(person=ana.face_image.person)
        return compare(*args, **options)

    FaceImage.objects.update(judged_at=None)
    monkeypatch.setattr(doubts, "resemblances", compare_and_move)
    doubts.judge([ana.face_image.pk, wrong.face_image.pk])
    assert list(doubts.unjudged()) == [wrong.face_image]


def test_merging_settles_what_the_kept_person_was_doubted_for(thresholds):
    (first,) = enroll("ana", look(1), **CROP).outcomes
    (second,) = enroll("ana2", look(1, 60), **CROP).outcomes
    assert codes("ana2") == [["looks_like_someone_else"]]
    corrections.merge_persons(second.face_image.person, first.face_image.person)
    assert codes("ana2") == [[], []]


# Quality


def test_quality_is_noted_with_its_numbers(thresholds):
    dark = draw_picture(colour=(4, 4, 4), size=(112, 112), seed=30)
    (outcome,) = enroll("ana", dark).outcomes
    assert "too_dark" in codes("ana")[0]
    assert [doubt.message for doubt in outcome.doubts] == [
        reason.message for reason in outcome.crop.quality.reasons
    ]


def test_doubtful_quality_is_refused_when_told(settings):
    settings.ENROLL_QUALITY = "refuse"
    dark = draw_picture(colour=(4, 4, 4), size=(112, 112), seed=30)
    enrollment = enroll("ana", dark)
    (error,) = [outcome.error for outcome in enrollment.outcomes]
    assert isinstance(error, LowQuality) and error.status == 422
    assert error.message.startswith("The face is too dark")
    assert not Person.objects.exists() and stored() == []
    assert len(enroll("ana", look(1), **CROP).accepted) == 1


def test_doubtful_identity_is_refused_when_told(settings, thresholds):
    settings.ENROLL_IDENTITY = "refuse"
    assert len(enroll("ana", look(1), look(1, 60), **CROP).accepted) == 2
    right, wrong, copy = enroll("bia", look(2), look(1, 50), look(1), **CROP).outcomes
    assert right.face_image and not wrong.face_image and not copy.face_image
    assert isinstance(wrong.error, DoubtfulIdentity)
    assert "looks like somebody else who is enrolled: ana" in wrong.error.message
    assert "other pictures" not in wrong.error.message
    assert "The very same picture" in copy.error.message
    assert FaceImage.objects.count() == len(stored()) == 3


def test_refusing_needs_milvus_before_anything_is_stored(settings, thresholds, no_search):
    settings.ENROLL_IDENTITY = "refuse"
    with pytest.raises(VectorStoreUnavailable):
        enroll("ana", look(1), **CROP)
    assert not FaceImage.objects.exists()


# What goes wrong


def test_failing_to_judge_loses_nothing_and_reindex_does_it(thresholds, monkeypatch, settings):
    enroll("ana", look(1), **CROP)
    with monkeypatch.context() as patch:
        patch.setattr(doubts, "resemblances", lambda *args: 1 / 0)
        (outcome,) = enroll("bia", look(1, 60), **CROP).outcomes
    assert outcome.embeddings[0].status == FaceEmbedding.Status.INDEXED
    assert outcome.judged is False and outcome.doubts == []
    assert reconcile(mend=False).found[Kind.NOT_JUDGED].examples == [outcome.face_image.pk]

    done = reconcile(mend=True)
    assert done.judged == 1 and done.changed and not done.unmended
    assert codes("bia") == [["looks_like_someone_else"]]
    assert Kind.NOT_JUDGED not in reconcile(mend=False).found


def test_reindex_tells_what_it_could_not_judge(thresholds, monkeypatch):
    enroll("ana", look(1), **CROP)
    FaceImage.objects.update(judged_at=None)
    monkeypatch.setattr(doubts, "resemblances", lambda *args: 1 / 0)
    assert sum(reconcile(mend=True).unmended.values()) == 1


def test_picture_without_a_vector_waits_to_be_judged(thresholds, no_store):
    (outcome,) = enroll("ana", look(1)).outcomes
    assert outcome.embeddings[0].status == FaceEmbedding.Status.FAILED
    assert outcome.judged is False
    assert outcome.doubts == []


def test_a_batch_costs_as_many_queries_as_one_picture(thresholds, django_assert_num_queries):
    enroll("ana", look(1), **CROP)
    rows = [enroll(f"p{n}", look(n), **CROP).outcomes[0].face_image.pk for n in range(2, 8)]
    with CaptureQueriesContext(connection) as one:
        doubts.judge(rows[:1])
    with django_assert_num_queries(len(one)):
        doubts.judge(rows)


def test_sync_again_judges_what_was_not(thresholds):
    enroll("ana", look(1), **CROP)
    (outcome,) = enroll("bia", look(1, 60), **CROP).outcomes
    Doubt.objects.all().delete()
    FaceImage.objects.update(judged_at=None)
    services.sync_again([outcome.face_image])
    assert codes("bia") == [["looks_like_someone_else"]]


def judge_again() -> None:
    FaceImage.objects.update(judged_at=None)
    reconcile(mend=True)


def test_dismissed_doubts_stay_dismissed_until_their_evidence_changes(thresholds):
    enroll("ana", look(1), **CROP)
    enroll("bia", look(2), **CROP)
    picture = enroll("bia", look(1, 60), **CROP).outcomes[0].face_image
    open_before = codes("bia")[1]
    assert (
        doubts.dismiss_doubts(FaceImage.objects.filter(pk=picture.pk), "boss")
        == len(open_before)
        == 2
    )

    corrections.change_person(Person.objects.get(person_id="bia"), person_id="bianca")
    corrections.change_person(Person.objects.get(person_id="ana"), person_id="anna")
    FaceImage.objects.get(pk=picture.pk).save()
    judge_again()
    services.sync_again([picture])
    assert codes("bianca")[1] == []
    kept = Doubt.with_dismissed.filter(face_image=picture)
    assert [doubt.dismissed_by for doubt in kept] == ["boss", "boss"]
    assert all(doubt.dismissed_at for doubt in kept)

    corrections.move_to_new_person([picture.pk], "caio")
    judge_again()
    assert codes("caio") == [["looks_like_someone_else"]]  # of somebody else than was looked at


def test_dismissed_quality_is_raised_again_when_it_is_another(thresholds):
    picture = enroll("ana", look(1), **CROP).outcomes[0].face_image
    for given, dismissed in ((3.2, False), (3.21, True), (9.0, False)):
        doubts._replace(
            {picture.pk: [Doubt(code="blurred", given=given, expected=10)]},
            Doubt.with_dismissed.filter(code="blurred"),
        )
        assert Doubt.objects.filter(code="blurred").exists() != dismissed
        doubts.dismiss_doubts(FaceImage.objects.all(), "boss")


def test_no_page_or_answer_shows_a_dismissed_doubt(boss, api, weights):
    pictures = add_vectors({"ana": 2, "bia": 1})
    doubtful, other = pictures[0], pictures[2]
    alike = {"code": "looks_like_someone_else", "given": 0.7, "expected": 0.4, "other": other}
    blurred = Doubt.objects.create(face_image=doubtful, code="blurred", given=3, expected=10)
    Doubt.objects.create(face_image=doubtful, **alike)
    person = reverse("person", args=[doubtful.person_id])

    def told() -> set[tuple[str, bool, bool]]:
        shown = {
            path: boss.get(path).content.decode()
            for path in ("/people/doubts", person, "/admin/enrollment/faceimage/")
        }
        shown["api"] = api.get("/api/persons/ana/images").content.decode()
        return {
            (path, "sharpness is 3" in text, "looks like somebody else who is enrolled" in text)
            for path, text in shown.items()
        }

    assert {(sharp, alike) for _path, sharp, alike in told()} == {(True, True)}
    Doubt.objects.filter(pk=blurred.pk).update(dismissed_at=timezone.now())
    assert {(sharp, alike) for _path, sharp, alike in told()} == {(False, True)}
    dismissed = boss.post("/people/doubts?page=2", {"picture": doubtful.pk})
    assert dismissed.url == "/people/doubts?page=2"  # where one was
    again = boss.post("/people/doubts", {"picture": doubtful.pk}, follow=True).content.decode()
    assert "a colleague had settled these doubts" in again  # it said that 0 were dismissed
    assert {(sharp, alike) for _path, sharp, alike in told()} == {(False, False)}
    assert list(gallery.with_doubts()) == []
    assert f'value="{doubtful.pk}"' not in boss.get("/people/doubts").content.decode()
    assert gallery.gallery_state().doubtful_pictures == 0 and gallery.doubt_counts() == []
