"""The examples in the OpenAPI document are real answers; RECORD_EXAMPLES=1 records them again."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.test import override_settings
from django.utils import timezone
from rest_framework.settings import api_settings
from rest_framework.test import APIClient

from enrollment import imports
from enrollment.api.schema import EXAMPLES as GALLERY_EXAMPLES
from enrollment.models import IdempotentRequest, Probe, Purpose
from recognition.api.schema import EXAMPLES
from recognition.exceptions import VectorStoreUnavailable
from recognition.networks import load_network
from recognition.networks.loader import unload_networks
from recognition.vector_store import VectorStore
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.enrollment.gallery import set_thresholds
from tests.pictures import upload

pytestmark = pytest.mark.django_db

ANA, BIA, CAL = PEOPLE
CPF = "123.456.789-09"
PERSON = f"/api/persons/{CPF}"
ROOT = Path(__file__).resolve().parent.parent
FILES = {
    ROOT / "recognition/api/examples.json": EXAMPLES,
    ROOT / "enrollment/api/examples.json": GALLERY_EXAMPLES,
}
SHOWN = 3  # numbers of an embedding


def photo(seed: int, shot: int = 0, name: str = "ana.jpg"):
    """A picture of a drawn person, which is nobody's personal data."""
    return upload(as_jpeg(draw_face(seed, shot)), name)


@pytest.fixture
def client(settings) -> APIClient:
    settings.RECOGNITION = settings.RECOGNITION | {"DEVICE": "cpu"}
    set_thresholds()
    cache.clear()
    unload_networks()  # the examples name what is loaded, which is what they ask for
    load_network("mobilenetv3_large")
    return APIClient(headers={"host": "127.0.0.1:8000"})


def insert(client: APIClient, **fields: Any) -> Any:
    images = {"images": [photo(ANA, name="ana-1.jpg"), upload(b"", "empty.jpg")]}
    return client.post("/api/milvus/insert", images | {"person_id": CPF} | fields)


def service(client: APIClient) -> dict[str, Any]:
    return {
        "health": client.get("/api/health"),
        "models": client.get("/api/models"),
        "detect": client.post("/api/detect", {"image": photo(ANA)}),
        "embedding": client.post("/api/embedding", {"image": photo(ANA)}),
        "embeddings_batch": client.post(
            "/api/embeddings/batch", {"images": [photo(ANA), upload(b"<html>", "notes.jpg")]}
        ),
        "embeddings_batch_422": client.post(
            "/api/embeddings/batch", {"images": upload(b"", "empty.jpg")}
        ),
    }


def failures(client: APIClient, settings) -> dict[str, Any]:
    path, form = "/api/embedding", {"image": photo(ANA)}
    foreign = {"sec-fetch-site": "cross-site"}
    answers = {
        "error_400": client.post(path, {"image": photo(ANA), "model": "resnet"}),
        "error_401": client.post(path, form, REMOTE_ADDR="10.0.0.7"),
        "error_403": client.post(path, {"image": photo(ANA)}, headers=foreign),
        "error_413": client.post(path, {"image": photo(ANA)}, CONTENT_LENGTH=str(10**9)),
        "error_415": client.post(path, {"image": "x"}, format="json"),
        "error_422": client.post(path, {"image": upload(), "require_face": "true"}),
        "error_503": client.post(path, {"image": photo(ANA), "model": "cosface_resnet50"}),
    }
    rates = {"DEFAULT_THROTTLE_RATES": api_settings.DEFAULT_THROTTLE_RATES | {"embed": "1/minute"}}
    settings.REST_FRAMEWORK = settings.REST_FRAMEWORK | rates
    client.post(path, {"image": photo(ANA)})
    answers["error_429"] = client.post(path, {"image": photo(ANA)})
    return answers


def gallery(client: APIClient, monkeypatch) -> dict[str, Any]:
    """Make the recorded requests on an empty gallery, in order."""
    details = {
        "name": "Ana",
        "legal_basis": "consent of 23 November 2026",
        "keep_until": "2099-12-31",
    }
    answers = {
        "persons_create": client.post("/api/persons", {"person_id": CPF, **details}, format="json"),
        "person_exists": client.post("/api/persons", {"person_id": CPF}, format="json"),
        "person_not_found": client.get("/api/persons/987"),
    }
    with monkeypatch.context() as while_no_worker_is_free:
        while_no_worker_is_free.setattr("enrollment.index.request_indexing", lambda ids: None)
        answers["milvus_insert_202"] = insert(client, **{"async": "true"})
    client.delete(PERSON)
    client.post("/api/persons", {"person_id": CPF, **details}, format="json")
    client.post("/api/persons", {"person_id": "bia", "name": "Bia"}, format="json")
    client.post("/api/milvus/insert", {"images": photo(ANA, 1), "person_id": "bia"})
    answers["milvus_insert"] = insert(client)
    answers["milvus_insert_422"] = client.post(
        "/api/milvus/insert", {"images": upload(b"", "empty.jpg"), "person_id": CPF}
    )
    key = {"idempotency-key": "order-1"}
    client.post(f"{PERSON}/images", {"images": photo(ANA, 2)}, headers=key)
    IdempotentRequest.objects.update(status=None, started_at=timezone.now())
    answers["request_in_progress"] = client.post(
        f"{PERSON}/images", {"images": photo(ANA, 2)}, headers=key
    )
    answers["milvus_search"] = client.post(
        "/api/milvus/search", {"image": photo(ANA, 3), "top_k": 2, "group_by_person": "true"}
    )
    answers["milvus_search_all_faces"] = client.post(
        "/api/milvus/search", {"image": photo(BIA), "all_faces": "true", "threshold": "0.5"}
    )
    answers["verify"] = client.post("/api/verify", {"source_image": photo(ANA), "person_id": CPF})
    answers["milvus_stats"] = client.get("/api/milvus/stats")
    first = client.get(f"{PERSON}/images").json()["results"][-1]["id"]
    change = {"name": "Ana Lima", "cover": first}
    answers["persons_change"] = client.patch(PERSON, change, format="json")
    answers["persons_list"] = client.get("/api/persons?page_size=1")
    answers["persons_read"] = client.get(PERSON)
    answers["persons_images_list"] = client.get(f"{PERSON}/images?page_size=1&page=2")
    moved = client.get("/api/persons/bia/images").json()["results"][0]["id"]
    answers["persons_images_move"] = client.patch(
        f"/api/persons/bia/images/{moved}", {"person_id": CPF}, format="json"
    )
    Purpose.objects.create(name="door")
    answers["consents_add"] = client.post(
        f"{PERSON}/consents",
        {"document": upload(b"%PDF-1.4", "consent.pdf"), "day": "2026-11-23", "purposes": "door"},
    )
    answers["consents_list"] = client.get(f"{PERSON}/consents")
    number = answers["consents_add"].json()["id"]
    answers["consents_remove"] = client.delete(f"{PERSON}/consents/{number}")
    answers["persons_merge"] = client.post(f"{PERSON}/merge", {"person_id": "bia"}, format="json")
    answers["person_merged"] = client.get("/api/persons/bia")
    answers["journal_list"] = client.get("/api/journal?action=pictures_moved&page_size=1")
    answers["persons_images_delete"] = client.delete(f"{PERSON}/images/{moved}")
    path, key = "/api/milvus/insert", {"idempotency-key": "order-2"}
    client.post(path, {"images": photo(ANA, 3), "person_id": CPF}, headers=key)
    answers["persons_delete"] = client.delete(PERSON)
    answers["person_deleted"] = client.post(
        path, {"images": photo(ANA, 3), "person_id": CPF}, headers=key
    )

    answers["persons_restore"] = client.post(f"{PERSON}/restore", {}, format="json")
    answers["not_in_trash"] = client.post(f"{PERSON}/restore", {}, format="json")
    answers["trash_list"] = client.get("/api/trash?page_size=1&page=2")
    merge = answers["persons_merge"].json()["undo"]
    answers["trash_undo"] = client.post(f"/api/trash/{merge}/undo", {}, format="json")
    deletion = answers["persons_images_delete"].json()["undo"]
    answers["trash_erase"] = client.delete(f"/api/trash/{deletion}")
    client.delete(f"{PERSON}?erase=true")
    with override_settings(KEEP_PROBES_DAYS=3):
        answers |= inbox(client)
    answers |= jobs(client)

    def fail(*args: Any) -> None:
        raise VectorStoreUnavailable("The disk is full.")

    monkeypatch.setattr(VectorStore, "upsert", fail)
    answers["milvus_insert_503"] = insert(client)
    return answers


def inbox(client: APIClient) -> dict[str, Any]:
    """Search a stranger beside one person, and settle it."""
    client.post("/api/milvus/insert", {"images": photo(BIA), "person_id": "bia"})
    search = {"image": photo(CAL), "group_by_person": "true"}
    number = client.post("/api/milvus/search", search).json()["answer_number"]
    listed = client.get("/api/inbox?kind=probe&page_size=1")
    card = f"/api/inbox/{listed.json()['results'][0]['key']}"
    probe = Probe.objects.get()
    Probe.objects.update(picture=None)
    gone = client.get(f"{card}/face")
    probe.save()
    said = {"answer_number": number, "person_id": "bia", "verdict": "rejected"}
    named = {"action": "new", "person_id": "cal", "name": "Cal"}
    return {
        "inbox_list": listed,
        "inbox_read": client.get(card),
        "feedback": client.post("/api/feedback", said, format="json"),
        "face_gone": gone,
        "inbox_settle": client.post(card, named, format="json"),
        "already_settled": client.post(card, named, format="json"),
        "card_not_found": client.get(card),
    }


def jobs(client: APIClient) -> dict[str, Any]:
    """Import two pictures, of which one is in nobody's folder."""
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        archive.writestr("ana/1.jpg", as_jpeg(draw_face(ANA)))
        archive.writestr("loose.jpg", as_jpeg(draw_face(ANA, 1)))
    basis = {"legal_basis": "consent of 23 November 2026"}
    with override_settings(
        TASKS={"default": {"BACKEND": "django_tasks.backends.dummy.DummyBackend"}}
    ):
        made = client.post("/api/jobs", basis | {"archive": upload(packed.getvalue(), "faces.zip")})
        job = f"/api/jobs/{made.json()['id']}"
        busy = client.post(f"{job}/pause")
    imports.carry_out_imports()
    return {
        "jobs_create": made,
        "import_busy": busy,
        "jobs_read": client.get(job),
        "jobs_files": client.get(f"{job}/files"),
        "jobs_act": client.post(f"{job}/start"),
        "jobs_list": client.get("/api/jobs?page_size=1"),
        "import_gone": client.get("/api/jobs/987"),
    }


def shortened(value: Any) -> Any:
    """Return the answer as an example: with only three numbers of an embedding."""
    if isinstance(value, dict):
        return {
            key: item[:SHOWN] if key == "embedding" else shortened(item)
            for key, item in value.items()
        }
    return [shortened(item) for item in value] if isinstance(value, list) else value


def shape(value: Any) -> Any:
    """Return what is the same on every machine: all but numbers, dates and booleans."""
    match value:
        case dict():
            return {key: shape(item) for key, item in value.items()}
        case list():
            return [shape(item) for item in value]
        case str():
            return re.sub(r"[0-9a-f]{32,64}|\d+", "0", value)  # ids of requests, and hashes
        case _:
            return type(value).__name__.replace("int", "float")


def test_the_examples_are_what_the_calls_answer(client, settings, monkeypatch):
    answers = [service(client) | failures(client, settings), gallery(client, monkeypatch)]
    for (file, examples), answered in zip(FILES.items(), answers, strict=True):
        real = {name: shortened(answer.json()) for name, answer in answered.items()}
        for name, answer in answered.items():
            if status := re.search(r"\d+$", name):
                assert answer.status_code == int(status[0]), name
        stale = [name for name in real if shape(real[name]) != shape(examples[name])]
        if os.environ.get("RECORD_EXAMPLES") == "1":
            kept = {name: examples[name] for name in real if name not in stale}
            file.write_text(json.dumps(real | kept, indent=1, ensure_ascii=False) + "\n")
        else:
            assert not stale and examples.keys() == real.keys(), (
                "Run RECORD_EXAMPLES=1 pytest tests/test_api_examples.py and look at the difference."
            )
