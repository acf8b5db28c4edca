"""The gallery audit finds each problem, finds nothing in a healthy gallery, and stays fast."""

from __future__ import annotations

import io
import json
from html import unescape

import pytest
from django.core.management import CommandError, call_command

from enrollment.judging.audit import Kind, examine_gallery, keep_examination
from enrollment.models import Doubt, Examination, FaceEmbedding, FaceImage, Person
from tests.commands import run
from tests.enrollment.gallery import add_vectors, set_thresholds

pytestmark = pytest.mark.django_db


@pytest.fixture
def gallery() -> dict[str, list[FaceImage]]:
    """Four persons with three good pictures each."""
    set_thresholds(match=0.5, review=0.4)
    pictures = add_vectors(dict.fromkeys(("ana", "bia", "caio", "davi"), 3))
    FaceImage.objects.update(judged_at="2026-01-01T00:00Z")
    by_person: dict[str, list[FaceImage]] = {}
    for picture in pictures:
        by_person.setdefault(picture.person.person_id, []).append(picture)
    return by_person


def findings() -> dict[Kind, list]:
    return examine_gallery().cases


def give(picture: FaceImage, person: Person) -> None:
    FaceImage.objects.filter(pk=picture.pk).update(person=person)


def test_healthy_gallery_has_no_finding(gallery):
    diagnosis = examine_gallery()
    assert diagnosis.cases == {} and diagnosis.faults == 0
    assert diagnosis.pictures == 12


def test_empty_gallery_has_no_finding(db):
    assert findings() == {}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("vectors", [{"ana": 1}, {"ana": 1, "bia": 1}, {"ana": 2, "bia": 1}])
def test_persons_with_one_picture_are_compared_without_a_warning(vectors):
    """Used to subtract infinity from infinity for a person with a single picture."""
    set_thresholds(match=0.5, review=0.4)
    add_vectors(vectors)
    assert Kind.NEARER_TO_ANOTHER not in findings()


def test_one_person_enrolled_twice(gallery):
    twin = Person.objects.create(person_id="ana again")
    for picture in gallery["ana"][1:]:
        give(picture, twin)
    (case,) = findings()[Kind.NEAR_DUPLICATES]
    assert case.persons == (gallery["ana"][0].person_id, twin.pk)
    assert case.pictures[0] == gallery["ana"][0].pk and 0.6 < case.similarity < 0.9


def test_one_person_enrolled_three_times_with_one_picture_each(gallery):
    twins = [Person.objects.create(person_id=f"ana {n}") for n in range(2)]
    for picture, twin in zip(gallery["ana"], twins, strict=False):
        give(picture, twin)
    pairs = [set(case.persons) for case in findings()[Kind.NEAR_DUPLICATES]]
    assert len(pairs) >= 2 and set.union(*pairs) == {
        gallery["ana"][0].person_id,
        *(twin.pk for twin in twins),
    }


def test_a_picture_under_the_wrong_person_does_not_make_them_one(gallery):
    wrong = gallery["ana"][0]
    give(wrong, gallery["bia"][0].person)
    found = findings()
    assert set(found) == {Kind.NEARER_TO_ANOTHER}
    (case,) = found[Kind.NEARER_TO_ANOTHER]
    assert case.pictures[0] == wrong.pk
    assert case.persons == (gallery["bia"][0].person_id, gallery["ana"][1].person_id)
    assert case.similarity > 0.5 > case.own_similarity


def test_without_thresholds_nobody_is_called_a_duplicate(gallery, monkeypatch):
    monkeypatch.setattr("enrollment.judging.audit.search_thresholds", lambda model: None)
    twin = Person.objects.create(person_id="ana again")
    give(gallery["ana"][2], twin)
    assert Kind.NEAR_DUPLICATES not in findings()


def test_what_rows_alone_tell(gallery):
    ana, bia, caio, davi = (pictures[0] for pictures in gallery.values())
    FaceImage.objects.filter(pk__in=[ana.pk, bia.pk]).update(content_hash="a" * 64)
    FaceEmbedding.objects.filter(face_image=caio).update(face_detected=False)
    FaceEmbedding.objects.filter(face_image=davi).update(status="pending")
    FaceImage.objects.filter(pk=ana.pk).update(judged_at=None)
    Doubt.objects.bulk_create(
        Doubt(face_image=picture, code="blurred", given=3, expected=10)
        for picture in (*gallery["bia"], gallery["caio"][0])
    )
    alone = Person.objects.create(person_id="alone")
    give(gallery["davi"][2], alone)
    nobody = Person.objects.create(person_id="nobody")

    found = findings()
    assert found[Kind.SAME_FILE][0].pictures == (ana.pk, bia.pk)
    assert [case.pictures for case in found[Kind.NO_FACE]] == [(caio.pk,)]
    assert [case.pictures for case in found[Kind.NOT_INDEXED]] == [(davi.pk,)]
    assert [case.pictures for case in found[Kind.NOT_JUDGED]] == [(ana.pk,)]
    assert [case.persons for case in found[Kind.ONLY_DOUBTFUL]] == [(bia.person_id,)]
    assert [case.persons for case in found[Kind.ONE_PICTURE]] == [(alone.pk,)]
    assert [case.persons for case in found[Kind.NO_PICTURE]] == [(nobody.pk,)]


def test_crops_are_not_pictures_without_a_face(gallery):
    FaceEmbedding.objects.update(face_detected=False)
    FaceImage.objects.update(use_face_detection=False)
    assert Kind.NO_FACE not in findings()


def test_the_last_report_is_kept_by_ids(gallery, monkeypatch):
    monkeypatch.setattr("enrollment.judging.audit.KEPT_CASES", 1)
    FaceImage.objects.filter(person__person_id__in=["ana", "bia"]).update(judged_at=None)
    keep_examination(examine_gallery())
    keep_examination(examine_gallery())
    stored = Examination.objects.get()
    assert stored.findings["not_judged"]["count"] == 6
    assert [case["pictures"] for case in stored.findings["not_judged"]["cases"]] == [
        [gallery["ana"][0].pk]
    ]
    assert "ana" not in json.dumps(stored.findings)


def test_command_is_content_with_a_healthy_gallery(gallery):
    told = run("audit_gallery")
    assert "12 pictures compared" in told and "Nothing found." in told
    Person.objects.create(person_id="nobody")
    assert "People without a picture: 1" in run("audit_gallery")  # told, and no fault


def test_command_names_what_is_wrong_and_fails(gallery):
    give(gallery["ana"][0], gallery["bia"][0].person)
    output = io.StringIO()
    with pytest.raises(CommandError, match="^1 fault found"):
        call_command("audit_gallery", stdout=output)
    assert "Pictures nearer to another person than to their own: 1" in output.getvalue()
    assert "bia – ana; pictures" in output.getvalue()


def test_command_tells_programs_everything(gallery):
    wrong = gallery["ana"][0]
    give(wrong, gallery["bia"][0].person)
    output = io.StringIO()
    with pytest.raises(CommandError):
        call_command("audit_gallery", "--json", stdout=output)
    told = json.loads(output.getvalue())
    assert (told["faults"], told["pictures"], told["review"]) == (1, 12, 0.4)
    (case,) = told["findings"]["nearer_to_another"]
    assert case["persons"] == ["bia", "ana"] and case["pictures"][0] == wrong.pk


def test_command_does_not_examine_by_a_model_without_weights(gallery, no_weights):
    with pytest.raises(CommandError, match="mobilenetv3_large' has no weights"):
        run("audit_gallery", "--model", "mobilenetv3_large")
    assert not Examination.objects.exists()


def test_the_old_name_of_the_command_goes_on_working() -> None:
    assert "pictures compared" in run("doctor")


def test_the_first_view_says_what_is_looked_for(boss) -> None:
    page = boss.get("/people/audit").text
    assert "was not examined yet" in page
    assert all(kind.title in unescape(page) for kind in Kind)


def test_two_that_look_like_one_are_compared_from_the_report(gallery, boss) -> None:
    ana, bia = gallery["ana"][0].person_id, gallery["bia"][0].person_id
    case = {"persons": [ana, bia], "pictures": [], "similarity": 0.9, "own_similarity": None}
    findings = {"near_duplicates": {"count": 1, "cases": [case]}}
    Examination.objects.create(model="m", pictures=2, findings=findings, seconds=1)
    address = f"/people/{ana}/merge?with={bia}"
    assert f'href="{address}"' in boss.get("/people/audit").text
    assert "Are these the same person?" in boss.get(address).text
