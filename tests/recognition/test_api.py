"""The calls about pictures and models, as the contract has them."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime

import numpy as np
import pytest
from django.utils.translation import gettext_lazy
from rest_framework.renderers import JSONRenderer as FrameworkJSONRenderer

from recognition.api.renderers import JSONRenderer
from recognition.decision import Decision
from recognition.networks.loader import load_network, unload_networks
from tests.pictures import draw_picture, upload

pytestmark = pytest.mark.django_db


def health(api):
    response = api.get("/api/health")
    assert response.status_code == 200
    return response.json()


def test_health_is_healthy_when_the_store_answers(api, weights):
    load_network(weights)  # another test may have unloaded it
    body = health(api)
    assert body["status"] == "healthy"
    assert body["milvus_connected"] is True
    assert body["models_loaded"] == body["models_available"] == [weights]
    assert body["device"] in ("cpu", "cuda")
    assert body["searched_in"] == "memory"
    assert body["problems"] == []


def test_health_lists_only_models_in_memory(api):
    unload_networks()
    assert health(api)["models_loaded"] == []


def test_health_is_degraded_without_the_store(api, no_store):
    body = health(api)
    assert body["status"] == "degraded"
    assert body["milvus_connected"] is False
    assert "manage.py reindex" in body["problems"][0]


def test_health_is_degraded_without_weights(api, no_weights):
    body = health(api)
    assert body["status"] == "degraded"
    assert body["models_available"] == []
    assert "mobilenetv3_large" in body["problems"][0]


def test_health_is_degraded_when_the_device_is_absent(api, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"DEVICE": "cuda:99"}
    body = health(api)
    assert (body["status"], body["device"]) == ("degraded", "unavailable")
    assert "DEVICE" in body["problems"][0]


def test_models_lists_all_and_says_which_are_there(api, weights):
    load_network(weights)  # another test may have unloaded it
    body = api.get("/api/models").json()
    assert body["default"] == "mobilenetv3_large"
    assert [model["name"] for model in body["models"]] == ["mobilenetv3_large", "cosface_resnet50"]
    for model in body["models"]:
        there = model["name"] == weights
        assert model["embedding_dim"] == 512
        assert model["description"]
        assert model["weight_exists"] is there
        assert model["loaded"] is there


def test_embedding_of_a_real_photo(api, faces):
    photo = next((faces / "Ann_Veneman").iterdir())
    response = api.post("/api/embedding", {"image": upload(photo.read_bytes())})
    body = response.json()
    assert response.status_code == 200, body
    assert (body["success"], body["model"]) == (True, "mobilenetv3_large")
    assert body["embedding_dim"] == len(body["embedding"]) == 512
    assert np.linalg.norm(body["embedding"]) == pytest.approx(1, abs=1e-5)
    assert body["face_detected"] is True
    assert len(body["face"]["box"]) == 4 and len(body["face"]["landmarks"]) == 5
    assert 0.9 < body["face"]["score"] <= 1
    assert body["face"]["quality"]["width"] == pytest.approx(body["face"]["box"][2], abs=0.1)


def test_embedding_without_a_face_says_so(api, picture):
    body = api.post("/api/embedding", {"image": upload(picture)}).json()
    assert body["success"] is True
    assert body["face_detected"] is False and body["face"] is None
    assert [reason["code"] for reason in body["quality"]["reasons"]] == ["no_face"]


def test_detect_answers_every_face(api, faces):
    photo = next((faces / "Ann_Veneman").iterdir())
    body = api.post("/api/detect", {"image": upload(photo.read_bytes())}).json()
    alone = api.post("/api/embedding", {"image": upload(photo.read_bytes())}).json()
    assert (body["success"], body["total"]) == (True, 1)
    assert (body["width"], body["height"]) == (350, 350)
    assert body["faces"][0]["box"] == alone["face"]["box"]
    assert body["faces"][0]["landmarks"] == alone["face"]["landmarks"]


def test_detect_without_a_face_finds_none(api, picture, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"NO_FACE_POLICY": "error"}
    response = api.post("/api/detect/", {"image": upload(picture)})
    assert response.status_code == 200
    assert (response.json()["faces"], response.json()["total"]) == ([], 0)


def test_a_request_may_set_the_bar_for_faces(api, faces):
    photo = next((faces / "Ann_Veneman").iterdir()).read_bytes()
    for path in ("/api/detect", "/api/embedding"):
        for bar in ({"min_score": "1"}, {"min_face_size": "340"}):
            body = api.post(path, {"image": upload(photo), **bar}).json()
            assert body.get("total", 0) == 0 and body.get("face") is None


def test_a_required_face_that_is_not_there_is_422(api, picture):
    response = api.post("/api/embedding", {"image": upload(picture), "require_face": "true"})
    assert response.status_code == 422
    assert response.json()["error"] == "no_face_detected"


def test_no_face_policy_error_is_422(api, picture, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"NO_FACE_POLICY": "error"}
    assert api.post("/api/embedding", {"image": upload(picture)}).status_code == 422


@pytest.mark.parametrize(
    ("flag", "looked_for"),
    [("True", True), ("", True), ("false", False)],
)
def test_use_face_detection_is_read_as_it_is_written(api, faces, flag, looked_for):
    photo = next((faces / "Ann_Veneman").iterdir())
    form = {"image": upload(photo.read_bytes()), "use_face_detection": flag}
    assert api.post("/api/embedding", form).json()["face_detected"] is looked_for


def test_a_flag_that_is_neither_is_refused(api, picture):
    form = {"image": upload(picture), "use_face_detection": "perhaps"}
    response = api.post("/api/embedding", form)
    assert response.status_code == 400
    assert list(response.json()["fields"]) == ["use_face_detection"]


def test_the_same_picture_gives_the_same_embedding_alone_and_in_a_batch(api):
    contents = [draw_picture(seed=seed) for seed in range(3)]
    alone = [api.post("/api/embedding", {"image": upload(content)}) for content in contents]
    batch = api.post("/api/embeddings/batch", {"images": [upload(content) for content in contents]})
    np.testing.assert_allclose(
        [answer.json()["embedding"] for answer in alone],
        [result["embedding"] for result in batch.json()["results"]],
        atol=1e-4,
    )


def test_batch_keeps_the_order_and_survives_bad_files(api):
    images = [
        upload(draw_picture(seed=1), "first.jpg"),
        upload(b"<html>no picture</html>", "second.jpg"),
        upload(draw_picture(seed=2, format="PNG"), "third.png"),
        upload(b"", "fourth.jpg"),
    ]
    response = api.post("/api/embeddings/batch", {"images": images})
    body = response.json()
    assert response.status_code == 200
    assert body["success"] is True
    assert (body["total"], body["successful"], body["failed"]) == (4, 2, 2)
    assert [(r["filename"], r["success"]) for r in body["results"]] == [
        ("first.jpg", True),
        ("second.jpg", False),
        ("third.png", True),
        ("fourth.jpg", False),
    ]
    good, bad = body["results"][0], body["results"][1]
    assert len(good["embedding"]) == 512 and good["face_detected"] is False
    assert bad["error"] == "invalid_image" and "HTML" in bad["message"]
    assert "embedding" not in bad


def test_batch_runs_through_the_network_as_batches(api, settings, monkeypatch):
    from recognition import inference

    settings.RECOGNITION = settings.RECOGNITION | {"EMBED_BATCH_SIZE": 4}
    sizes = []
    forward = inference.forward
    monkeypatch.setattr(
        inference, "forward", lambda net, crops: sizes.append(len(crops)) or forward(net, crops)
    )
    images = [upload(draw_picture((112, 112), seed=seed)) for seed in range(6)]
    api.post("/api/embeddings/batch", {"images": images, "use_face_detection": "false"})
    assert sizes == [4, 2]


def test_batch_of_which_nothing_came_is_no_success(api):
    response = api.post("/api/embeddings/batch", {"images": [upload(b"x"), upload(b"")]})
    body = response.json()
    assert response.status_code == 422
    assert (body["success"], body["error"]) == (False, "all_images_failed")
    assert (body["total"], body["successful"], body["failed"]) == (2, 0, 2)
    assert all(result["message"] for result in body["results"])


@pytest.mark.parametrize("path", ["/api/health", "/api/models"])
def test_reading_calls_answer_with_and_without_slash(api, path):
    assert api.get(path).status_code == api.get(f"{path}/").status_code == 200


def test_embedding_calls_answer_with_a_slash(api, picture):
    assert api.post("/api/embedding/", {"image": upload(picture)}).status_code == 200
    assert api.post("/api/embeddings/batch/", {"images": upload(picture)}).status_code == 200


@pytest.mark.parametrize("accept", ["*/*", "application/json", None])
def test_programs_get_json(api, accept):
    headers = {"accept": accept} if accept else {}
    assert api.get("/api/models", headers=headers)["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "field"),
    [("/api/embedding", "image"), ("/api/embeddings/batch", "images")],
)
def test_browsers_get_a_form_that_uploads(api, path, field):
    page = api.get(path, headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    html = page.content.decode()
    assert page["Content-Type"].startswith("text/html")
    assert 'enctype="multipart/form-data"' in html
    assert re.search(rf'<input id="field-{field}"[^>]*type="file"', html)
    assert ("multiple" in html) is (field == "images")
    # What the form sends untouched is what the call takes without the field.
    assert re.search(r'name="use_face_detection"[^>]*><option value="true" selected', html)
    assert re.search(
        r'name="require_face"[^>]*><option[^>]*>true</option><option[^>]* selected', html
    )


def test_a_browsers_form_shows_the_answer(api, picture):
    page = api.post(
        "/api/embedding",
        {"image": upload(picture)},
        headers={"accept": "text/html,application/xhtml+xml"},
    )
    assert page.status_code == 200
    assert b"&quot;embedding_dim&quot;: 512" in page.content


def test_json_is_the_frameworks():
    data = {
        "embedding": np.random.default_rng(0).normal(0, 1, 512).tolist(),
        "message": gettext_lazy("Faces"),
        "at": datetime(2026, 11, 27, 9, 30, 0, 250, tzinfo=UTC),
        "day": date(2026, 11, 27),
        "decision": Decision.MATCH,
        "nothing": None,
        1: [1e-7, 1.0, -0.0, 2**60, True],
        "text": "Conceição \u2028 </script>",
    }
    for wanted in ("application/json", "application/json; indent=2"):
        written = JSONRenderer().render(data, wanted, {})
        assert json.loads(written) == json.loads(FrameworkJSONRenderer().render(data, wanted, {}))
    assert JSONRenderer().render(None) == b""
