"""Clients of the previous system work unchanged, over HTTP."""

from __future__ import annotations

import json

import numpy as np
import pytest
import requests

from tests.drawn_faces import PEOPLE, as_jpeg, draw_face

pytestmark = pytest.mark.django_db(transaction=True)

TIMEOUT_SECONDS = 120


class LegacyClient:
    """A typical old client: plain `requests`, form fields as text, a check of `success`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def get(self, path: str) -> dict:
        return self._read(self.session.get(f"{self.url}{path}", timeout=TIMEOUT_SECONDS))

    def post(self, path: str, files: object, **data: object) -> dict:
        return self._read(
            self.session.post(f"{self.url}{path}", files=files, data=data, timeout=TIMEOUT_SECONDS)
        )

    @staticmethod
    def _read(response: requests.Response) -> dict:
        response.raise_for_status()
        return response.json()


@pytest.fixture
def legacy(live_server, weights) -> LegacyClient:
    return LegacyClient(live_server.url)


def part(number: int) -> tuple[str, bytes, str]:
    return (f"foto {number} é.jpg", as_jpeg(draw_face(PEOPLE[number])), "image/jpeg")


def test_a_working_day_of_a_legacy_client(legacy):
    assert legacy.get("/api/health")["status"] == "healthy"
    models = legacy.get("/api/models")["models"]
    assert {model["name"]: model["embedding_dim"] for model in models} == {
        "mobilenetv3_large": 512,
        "cosface_resnet50": 512,
    }

    single = legacy.post("/api/embedding", {"image": part(1)}, model="mobilenetv3_large")
    assert single["success"] is True and single["embedding_dim"] == 512
    assert np.array(single["embedding"], np.float32).shape == (512,)

    several = [("images", part(number)) for number in range(3)]
    batch = legacy.post("/api/embeddings/batch", several, use_face_detection=False)
    assert (batch["total"], batch["successful"], batch["failed"]) == (3, 3, 0)
    assert [result["filename"] for result in batch["results"]] == [p[0] for _, p in several]

    legacy.session.headers["Accept-Language"] = "pt-BR,pt;q=0.9"
    inserted = legacy.post(
        "/api/milvus/insert",
        several[:2],
        model="mobilenetv3_large",
        person_id="123.456.789-09",
        image_paths=json.dumps(["/fotos/0.jpg", "/fotos/1.jpg"]),
        use_face_detection="true",
    )
    assert {
        key: inserted[key] for key in ("success", "message", "inserted_count", "collection")
    } == {
        "success": True,
        "message": "2 embeddings inseridos com sucesso",
        "inserted_count": 2,
        "collection": "face_embeddings",
    }

    found = legacy.post("/api/milvus/search", {"image": part(1)}, top_k=1)
    (hit,) = found["results"]
    assert (found["success"], found["total"]) == (True, 1)
    assert (hit["person_id"], hit["image_path"]) == ("123.456.789-09", "/fotos/1.jpg")
    assert hit["distance"] == pytest.approx(1, abs=1e-3)
    assert isinstance(hit["id"], int) and isinstance(hit["created_at"], str)

    stats = legacy.get("/api/milvus/stats")
    assert (stats["collection"], stats["row_count"]) == ("face_embeddings", 2)


def test_its_errors_are_json_with_the_right_status(legacy):
    with pytest.raises(requests.HTTPError) as failure:
        legacy.post("/api/embedding", {"wrong": part(1)})
    assert failure.value.response.status_code == 400
    assert failure.value.response.json()["success"] is False


def test_a_client_in_java_gets_json(legacy):
    """Java's HttpURLConnection accepts HTML before all else unless told otherwise, and got a page."""
    legacy.session.headers["Accept"] = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
    assert legacy.get("/api/health")["status"] == "healthy"
    assert legacy.get("/api/models")["default"] == "mobilenetv3_large"
    assert legacy.get("/api/milvus/stats")["row_count"] == 0
    assert legacy.post("/api/embedding", {"image": part(1)})["embedding_dim"] == 512
    assert legacy.post("/api/milvus/insert", {"images": part(1)}, person_id="1")["inserted_count"]
