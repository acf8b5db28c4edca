"""A group photo at enrolment: whose face is meant, and that it stays this one."""

from __future__ import annotations

import numpy as np
import pytest

from enrollment.enrolling import sync_again
from enrollment.index import indexing
from enrollment.models import FaceEmbedding, FaceImage, Person
from recognition import embedding
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group
from tests.enrollment.gallery import enroll, found, stored
from tests.pictures import draw_picture, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]

INSERT = "/api/milvus/insert"


@pytest.fixture(scope="module")
def group() -> bytes:
    return as_jpeg(draw_group())


def insert(api, content: bytes, **fields: object):
    return api.post(INSERT, {"images": upload(content), "person_id": "ana", **fields})


def faces(api, content: bytes) -> list[dict]:
    return api.post("/api/detect", {"image": upload(content)}).json()["faces"]


def test_the_largest_is_taken_unless_told_otherwise(api, group):
    seen = faces(api, group)
    (result,) = insert(api, group).json()["results"]
    assert len(seen) == len(PEOPLE) and result["face"]["box"] == seen[0]["box"]


def test_several_faces_are_refused_when_asked(api, group):
    response = insert(api, group, on_several_faces="refuse")
    (result,) = response.json()["results"]
    assert (response.status_code, result["error"]) == (422, "several_faces")
    assert "3 faces" in result["message"] and "face_index" in result["message"]
    assert not FaceImage.objects.exists()
    alone = insert(api, as_jpeg(draw_face(PEOPLE[0])), on_several_faces="refuse")
    assert alone.status_code == 200


def test_the_face_that_is_named_is_enrolled_and_stays(api, group):
    wanted = faces(api, group)[2]
    options = {"face_index": 2, "on_several_faces": "refuse"}
    (result,) = insert(api, group, **options).json()["results"]
    assert result["face"]["box"] == wanted["box"]
    assert result["face"]["quality"]["reasons"] == wanted["quality"]["reasons"]
    before = FaceEmbedding.objects.get()
    vector = before.array
    before.delete()  # as when the weights are replaced
    sync_again(FaceImage.objects.all())
    after = FaceEmbedding.objects.get()
    assert after.face["box"] == wanted["box"] and after.status == "indexed"
    assert float(after.array @ vector) == pytest.approx(1, abs=1e-3)


def test_a_face_that_is_not_there_is_refused(api, group):
    (result,) = insert(api, group, face_index=3).json()["results"]
    assert result["error"] == "no_such_face" and "has 3" in result["message"]
    response = insert(api, group, face_index=-1)
    assert response.status_code == 400 and list(response.json()["fields"]) == ["face_index"]


def test_a_face_is_named_in_one_picture(api, group):
    form = {"images": [upload(group), upload(group)], "person_id": "ana", "face_index": 1}
    response = api.post(INSERT, form)
    assert response.status_code == 400 and list(response.json()["fields"]) == ["face_index"]


def test_a_crop_has_no_faces_to_name(api, group):
    response = insert(api, group, face_index=1, use_face_detection="false")
    assert response.status_code == 400 and list(response.json()["fields"]) == ["face_index"]
    assert not Person.objects.exists()


def test_the_operator_corrects_the_face(boss, api, group, commits):
    assert insert(api, group).status_code == 200
    person = Person.objects.get()
    page = f"/people/{person.pk}/"
    said = boss.get(page).content.decode()
    picture = FaceImage.objects.get()
    choice = f"{page}face?picture={picture.pk}"
    admin = boss.get(f"/admin/enrollment/faceimage/{picture.pk}/change/").content.decode()
    assert choice in said and choice in admin
    assert boss.get(choice).content.decode().count('name="face_index"') == len(PEOPLE)

    with commits():
        done = boss.post(f"{page}face", {"picture": picture.pk, "face_index": 2}, follow=True)
    assert "The picture now stands for this face." in done.content.decode()
    row = FaceEmbedding.objects.get()
    assert row.face["box"] == faces(api, group)[2]["box"] and row.status == "indexed"
    assert [each.id for each in stored()] == [row.pk]
    assert not picture.doubts.filter(code="several_faces").exists()
    wrong = boss.post(f"{page}face", {"picture": picture.pk, "face_index": 9}, follow=True)
    assert "no such face" in wrong.content.decode()


# What was found once is not looked for again


def test_pictures_enrolled_without_waiting_are_looked_at_once(api, group, monkeypatch):
    looks = []
    detect = embedding.detect_faces
    monkeypatch.setattr(
        embedding, "detect_faces", lambda *a, **k: looks.append(a) or detect(*a, **k)
    )
    response = insert(api, as_jpeg(draw_face(PEOPLE[0])), **{"async": "true"})
    assert response.status_code == 200 and len(looks) == 1  # no thread runs here: done at once
    row = FaceEmbedding.objects.get()
    assert (row.status, row.face_detected) == ("indexed", True)
    assert found(as_jpeg(draw_face(PEOPLE[0]))) == ["ana"]


def test_the_crop_made_later_is_the_same():
    picture = as_jpeg(draw_face(PEOPLE[1]))
    (outcome,) = enroll("ana", picture, use_face_detection=True).outcomes
    crops, broken = indexing.find_faces(
        [outcome.face_image], {outcome.face_image.pk: outcome.crop.face_record()}, {}
    )
    again = crops[outcome.face_image.pk]
    assert broken == {}
    assert np.abs(again.pixels.astype(int) - outcome.crop.pixels).mean() < 0.5
    assert again.quality.as_record() == outcome.crop.quality.as_record()


def test_a_file_is_hashed_once(api, monkeypatch):
    from enrollment.enrolling import inspection

    hashed = []
    sha256 = inspection.hashlib.sha256

    def counted(content: bytes = b"", **options: object):
        hashed.append(len(content))
        return sha256(content, **options)

    content = draw_picture()
    monkeypatch.setattr(inspection.hashlib, "sha256", counted)
    form = {"images": upload(content), "person_id": "ana", "use_face_detection": "false"}
    assert api.post(INSERT, form, headers={"idempotency-key": "k"}).status_code == 200
    assert hashed.count(len(content)) == 1
