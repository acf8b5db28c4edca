"""The endpoints for search and verification."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enrollment.models import Calibration, FaceEmbedding, Person
from recognition.networks import find_weights
from tests.enrollment.gallery import MODEL, add_vectors, enroll
from tests.pictures import draw_picture, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]

SEARCH = "/api/milvus/search"
VERIFY = "/api/verify"
WHOLE = {"use_face_detection": "false"}  # drawn pictures have no face


@pytest.fixture
def calibrated() -> Calibration:
    """Set the match threshold to 0.99, which only the same picture reaches."""
    return Calibration.objects.create(
        model=MODEL, fingerprint=find_weights(MODEL).fingerprint,
        match=0.99, match_far=0.001, review=-0.9, review_far=0.01,
        genuine_pairs=1000, impostor_pairs=100_000, persons=100,
    )  # fmt: skip


@pytest.fixture(scope="module")
def photos(faces) -> dict[str, list[Path]]:
    """Photos of three people, a list for each."""
    people = [folder for folder in sorted(faces.iterdir()) if folder.name != "Ann_Veneman"]
    return {folder.name: sorted(folder.iterdir()) for folder in people[:3]}


@pytest.fixture(scope="module")
def group(photos) -> bytes:
    """A PNG with the first photos of two of them; the second is larger."""
    first, second, _third = (Image.open(paths[0]).convert("RGB") for paths in photos.values())
    canvas = Image.new("RGB", (700, 320), (90, 100, 110))
    canvas.paste(first.resize((200, 200)), (40, 60))
    canvas.paste(second.resize((300, 300)), (360, 10))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def ask(api, path: str, status: int = 200, **form) -> dict:
    response = api.post(path, form)
    assert response.status_code == status, response.content
    return response.json()


def vector_of(embedding: FaceEmbedding) -> list[float]:
    return embedding.array.tolist()


def test_hits_carry_a_decision_and_name_the_person(api, calibrated):
    enroll("ana", draw_picture(seed=1), name="Ana", use_face_detection=False)
    enroll("bia", draw_picture(seed=2), use_face_detection=False)

    found = ask(api, SEARCH, image=upload(draw_picture(seed=1)), **WHOLE)

    assert [hit["decision"] for hit in found["results"]] == ["match", "review"]
    assert found["results"][0]["person_name"] == "Ana"
    assert found["decision"] == "match"
    assert found["thresholds"] == {"match": 0.99, "review": -0.9}
    assert "faces" not in found


def test_no_similarity_passes_1(api, calibrated):
    """The product of a vector of length 1 with itself is 1.0000001 as often as not."""
    for seed in range(12):
        same = {name: upload(draw_picture(seed=seed)) for name in ("source_image", "target_image")}
        assert ask(api, VERIFY, **same, **WHOLE)["similarity"] <= 1
        enroll("ana", draw_picture(seed=seed), use_face_detection=False)
        of_ana = {"source_image": upload(draw_picture(seed=seed)), "person_id": "ana"}
        assert ask(api, VERIFY, **of_ana, **WHOLE)["similarity"] <= 1


def test_a_stranger_is_unknown(api, calibrated):
    Calibration.objects.update(review=0.98)
    enroll("ana", draw_picture(seed=1), use_face_detection=False)

    found = ask(api, SEARCH, image=upload(draw_picture(seed=7, colour="navy")), **WHOLE)

    assert [hit["decision"] for hit in found["results"]] == ["unknown"]
    assert found["decision"] == "unknown"


def test_the_thresholds_told_are_those_of_a_search_in_a_gallery_of_this_size(api, calibrated):
    Calibration.objects.update(match=0.5, review=0.3)
    add_vectors({f"person {number}": 1 for number in range(40)})

    found = ask(api, SEARCH, image=upload(), **WHOLE)
    compared = ask(api, VERIFY, source_image=upload(), target_image=upload(), **WHOLE)

    assert found["thresholds"]["match"] > compared["threshold"] == 0.5


def test_an_empty_gallery_knows_nobody(api, calibrated):
    assert ask(api, SEARCH, image=upload(), **WHOLE)["decision"] == "unknown"


def test_nothing_is_decided_without_thresholds(api, monkeypatch):
    monkeypatch.setattr("enrollment.gallery.weights.thresholds_of", lambda *weights: None)
    enroll("ana", draw_picture(), use_face_detection=False)

    found = ask(api, SEARCH, image=upload(), **WHOLE)

    assert [hit["decision"] for hit in found["results"]] == [None]
    assert found["decision"] is None and found["thresholds"] is None


def test_threshold_leaves_the_less_similar_out(api):
    enroll("ana", draw_picture(seed=1), draw_picture(seed=2), use_face_detection=False)
    probe = {"image": upload(draw_picture(seed=1)), **WHOLE}

    found = ask(api, SEARCH, **probe, threshold="0.9999")

    assert [hit["similarity"] for hit in found["results"]] == [pytest.approx(1, abs=1e-4)]


def test_a_person_is_found_once_on_demand(api):
    enroll("ana", *(draw_picture(seed=seed) for seed in range(3)), use_face_detection=False)
    enroll("bia", draw_picture(seed=9), use_face_detection=False)
    probe = draw_picture(seed=1)

    ungrouped = ask(api, SEARCH, image=upload(probe), **WHOLE)
    grouped = ask(api, SEARCH, image=upload(probe), group_by_person="true", **WHOLE)

    assert ungrouped["total"] == 4
    assert sorted(hit["person_id"] for hit in grouped["results"]) == ["ana", "bia"]
    best = next(hit for hit in grouped["results"] if hit["person_id"] == "ana")
    assert best["similarity"] == pytest.approx(1, abs=1e-4)


def test_every_face_of_a_picture_is_searched(api, photos, group):
    first, second, _third = photos
    for name, paths in photos.items():
        enroll(name, paths[0].read_bytes(), use_face_detection=True)

    found = ask(api, SEARCH, image=upload(group, "group.png"), all_faces="true", top_k="1")

    assert [face["results"][0]["person_id"] for face in found["faces"]] == [second, first]
    assert all(face["face_detected"] and face["total"] == 1 for face in found["faces"])
    assert found["results"] == found["faces"][0]["results"]
    assert found["face"] == found["faces"][0]["face"]
    assert found["face"]["quality"]["faces"] is None


def test_a_search_may_leave_small_faces_out(api, group):
    faces = ask(api, "/api/detect", image=upload(group, "group.png"))["faces"]
    between = sum(min(face["box"][2:]) for face in faces) / 2

    found = ask(
        api, SEARCH, image=upload(group, "group.png"), all_faces="true", min_face_size=between
    )

    assert len(found["faces"]) == 1


def test_an_embedding_finds_its_picture(api):
    rows = enroll("ana", draw_picture(), use_face_detection=False).outcomes[0].embeddings
    enroll("bia", draw_picture(seed=4), use_face_detection=False)
    scaled = [1e-30 * value for value in vector_of(rows[0])]

    found = ask(api, SEARCH, embedding=json.dumps(scaled), all_faces="true", top_k="1")

    assert [hit["id"] for hit in found["results"]] == [rows[0].pk]
    assert found["results"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert (found["face_detected"], found["face"]) == (False, None)
    assert len(found["faces"]) == 1


@pytest.mark.parametrize(
    "embedding",
    [
        "[0.1, 0.2]",
        json.dumps([0.0] * 512),
        json.dumps([0.1] * 513),
        "[" + ",".join(["NaN"] * 512) + "]",
        "[" + ",".join(["1e999"] * 512) + "]",
        "[" + ",".join(["Infinity"] * 512) + "]",
        "[" + ",".join(["1" + "0" * 400] * 512) + "]",
        json.dumps([True] * 512),
        json.dumps(["0.1"] * 512),
        json.dumps([[0.1]] * 512),
        json.dumps({"embedding": [0.1] * 512}),
        "[" * 5000,
        "0.1, 0.2",
        "null",
    ],
)
def test_what_is_no_embedding_is_refused(api, embedding):
    body = ask(api, SEARCH, 400, embedding=embedding)

    assert list(body["fields"]) == ["embedding"]
    assert "512" in body["message"]


def test_a_search_needs_either_a_picture_or_an_embedding(api):
    vector = json.dumps(np.eye(512)[0].tolist())

    assert list(ask(api, SEARCH, 400)["fields"]) == ["image"]
    assert list(ask(api, SEARCH, 400, image=upload(), embedding=vector)["fields"]) == ["embedding"]


@pytest.mark.parametrize(
    ("path", "value"), [(SEARCH, "2"), (SEARCH, "nan"), (VERIFY, "-1.5"), (VERIFY, "high")]
)
def test_a_threshold_is_a_cosine(api, path, value):
    form = {"image": upload(), "source_image": upload(), "person_id": "ana"}

    assert list(ask(api, path, 400, **form, threshold=value)["fields"]) == ["threshold"]


@pytest.mark.parametrize(
    ("field", "value"), [("min_score", "1.1"), ("min_score", "nan"), ("min_face_size", "-1")]
)
def test_detection_options_out_of_bounds_are_refused(api, field, value):
    for path in (SEARCH, "/api/detect", "/api/embedding"):
        body = ask(api, path, 400, image=upload(), **{field: value})
        assert list(body["fields"]) == [field]


def test_the_same_picture_verifies(api, photos, calibrated):
    (first, *_), *_others = photos.values()

    body = ask(
        api,
        VERIFY,
        source_image=upload(first.read_bytes()),
        target_image=upload(first.read_bytes()),
    )

    assert body["verified"] is True and body["decision"] == "match"
    assert body["similarity"] == pytest.approx(1, abs=1e-4)
    assert body["threshold"] == 0.99
    assert (body["model"], body["use_face_detection"]) == (MODEL, True)
    assert body["source"]["face"]["box"] == body["target"]["face"]["box"]
    assert "0.9900" in body["message"]


def test_a_verdict_has_the_numbers_of_its_language(api, calibrated):
    form = {name: upload(draw_picture()) for name in ("source_image", "target_image")}
    headers = {"Accept-Language": "pt-BR"}
    message = api.post(VERIFY, form | WHOLE, headers=headers).json()["message"]
    assert message == "A mesma pessoa: a similaridade é 1,0000, e espera-se pelo menos 0,9900."


def test_other_people_do_not_verify(api, photos, calibrated):
    (first, *_), (second, *_), _third = photos.values()

    body = ask(
        api,
        VERIFY,
        source_image=upload(first.read_bytes()),
        target_image=upload(second.read_bytes()),
    )

    assert body["verified"] is False and body["decision"] == "review"
    assert -1 <= body["similarity"] < 0.99


def test_nothing_is_verified_without_thresholds_unless_one_is_given(api, monkeypatch):
    monkeypatch.setattr("enrollment.gallery.weights.thresholds_of", lambda *weights: None)
    images = {"source_image": draw_picture(), "target_image": draw_picture()}

    def verify(**form):
        files = {field: upload(content) for field, content in images.items()}
        return ask(api, VERIFY, **files, **WHOLE, **form)

    undecided = verify()
    assert (undecided["verified"], undecided["threshold"]) == (None, None)
    assert "calibrate" in undecided["message"]
    assert verify(threshold="0.5")["verified"] is True
    images["target_image"] = draw_picture(seed=5, colour="navy")
    assert verify(threshold="0.9999")["verified"] is False


def test_the_best_of_a_persons_pictures_is_compared(api, photos, calibrated):
    name, paths = next(iter(photos.items()))
    contents = [path.read_bytes() for path in paths[:2]]
    outcomes = enroll(name, *contents, name="Someone", use_face_detection=True).outcomes

    body = ask(api, VERIFY, source_image=upload(paths[1].read_bytes()), person_id=f" {name} ")

    assert body["verified"] is True
    target = body["target"]
    assert target["id"] == outcomes[1].embeddings[0].pk
    assert (target["person_id"], target["person_name"]) == (name, "Someone")
    assert target["face"]["quality"]["reasons"] == body["source"]["face"]["quality"]["reasons"]
    assert api.get(target["image_url"]).status_code == 200


def test_a_person_whom_nobody_knows_is_404(api):
    body = ask(api, VERIFY, 404, source_image=upload(), person_id="ana", **WHOLE)

    assert body["error"] == "person_not_found" and "ana" in body["message"]


def test_a_person_without_vectors_is_422_and_says_what_to_do(api):
    Person.objects.create(person_id="ana")

    body = ask(api, VERIFY, 422, source_image=upload(), person_id="ana", **WHOLE)

    assert body["error"] == "person_not_comparable" and "reindex" in body["message"]


def test_verify_needs_faces_unless_told_otherwise(api, photos):
    (photo, *_), *_others = photos.values()

    def files():
        return {"source_image": upload(photo.read_bytes()), "target_image": upload()}

    body = ask(api, VERIFY, 422, **files())
    assert body["error"] == "no_face_detected"
    assert body["message"].startswith("target_image: ")
    whole = ask(api, VERIFY, **files(), require_face="false")
    assert whole["target"]["face_detected"] is False
    assert whole["target"]["quality"]["reasons"][0]["code"] == "no_face"


def test_a_broken_picture_is_named(api):
    body = ask(api, VERIFY, 400, source_image=upload(b"x"), target_image=upload(), **WHOLE)

    assert body["error"] == "invalid_image" and body["message"].startswith("source_image: ")


def test_verify_says_what_is_missing_or_too_much(api):
    both = {"target_image": upload(), "person_id": "ana"}

    assert list(ask(api, VERIFY, 400, target_image=upload())["fields"]) == ["source_image"]
    assert list(ask(api, VERIFY, 400, source_image=upload())["fields"]) == ["target_image"]
    body = ask(api, VERIFY, 400, source_image=upload(), **both)
    assert list(body["fields"]) == ["person_id"]


def test_verify_answers_a_model_without_weights_with_503(api):
    form = {"source_image": upload(), "target_image": upload(), "model": "cosface_resnet50"}

    assert ask(api, VERIFY, 503, **form)["error"] == "weights_unavailable"


@pytest.mark.parametrize("path", [SEARCH, VERIFY, "/api/detect"])
def test_browsers_get_a_form(api, path):
    page = api.get(path, headers={"accept": "text/html,application/xhtml+xml"}).content.decode()

    assert 'enctype="multipart/form-data"' in page
    assert 'type="file"' in page and 'name="min_face_size"' in page


def test_empty_fields_of_a_browsers_form_count_as_not_sent(api):
    enroll("ana", draw_picture(), use_face_detection=False)
    empty = dict.fromkeys(("embedding", "threshold", "min_score", "min_face_size"), "")

    assert ask(api, SEARCH, image=upload(), **empty, **WHOLE)["total"] == 1
