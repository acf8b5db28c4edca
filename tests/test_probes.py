"""`/livez` and `/readyz`: open without an account, correct, and without data."""

from __future__ import annotations

import shutil

import pytest
from django.db import DatabaseError
from django.test import Client

from recognition import health
from recognition.exceptions import WeightsUnavailable
from recognition.networks import find_weights, load_network
from recognition.networks.loader import unload_networks

pytestmark = pytest.mark.django_db
MODEL = "mobilenetv3_large"


@pytest.fixture
def probe():
    """A client like an orchestrator: by IP address, over plain HTTP."""
    return Client(headers={"host": "10.1.2.3:8000"}, REMOTE_ADDR="10.0.0.7")


@pytest.fixture
def damaged_weights(settings, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / f"{MODEL}.ckpt").write_bytes(b"no checkpoint")
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": folder}
    unload_networks()
    with pytest.raises(WeightsUnavailable):
        load_network(MODEL)
    return folder


def problems(response) -> str:
    assert response.status_code == 503
    assert response["Retry-After"] == "5"
    body = response.json()
    assert set(body) == {"status", "problems"} and body["status"] == "not ready"
    return " ".join(body["problems"])


def test_both_answer_without_account_over_http_by_address(probe, settings, weights):
    settings.SECURE_SSL_REDIRECT = settings.API_AUTH_REQUIRED = True
    for path, status in {"/livez": "alive", "/readyz": "ready"}.items():
        response = probe.get(path)
        assert (response.status_code, response.json()) == (200, {"status": status})
        assert probe.head(path).status_code == 200
        assert probe.post(path).status_code != 200


def test_a_process_without_store_and_weights_is_alive_but_not_ready(probe, no_store, no_weights):
    assert probe.get("/livez").status_code == 200
    said = problems(probe.get("/readyz"))
    assert "vector database" in said and f"'{MODEL}' has no weights" in said


def test_damaged_weights_are_told_once_they_were_tried(probe, api, damaged_weights):
    assert "is damaged" in problems(probe.get("/readyz"))
    body = api.get("/api/health").json()
    assert body["status"] == "degraded" and "is damaged" in body["problems"][0]


def test_what_did_not_load_is_told_in_the_language_of_who_asks(api, damaged_weights):
    portuguese = {"accept-language": "pt-BR"}
    api.get("/api/health", headers=portuguese)
    (said,) = api.get("/api/health", headers=portuguese).json()["problems"]
    (same,) = api.get("/api/health", headers={"accept-language": "en"}).json()["problems"]
    assert "danificado" in said and "is damaged" in same


def test_a_model_that_fails_after_it_was_loaded_is_told(probe, api, weights, monkeypatch):
    """A GPU may be lost while the server runs: every embedding was a 500 and the health was healthy."""
    loaded = load_network(MODEL)
    assert api.get("/api/health").json()["problems"] == []

    def fail(crops):
        raise RuntimeError("CUDA error: unspecified launch failure at /srv/secret")

    monkeypatch.setattr(loaded.runtime, "run", fail)
    said = problems(probe.get("/readyz"))
    assert f"'{MODEL}' computes no embedding" in said and "secret" not in said
    assert api.get("/api/health").json()["status"] == "degraded"
    monkeypatch.undo()
    assert probe.get("/readyz").status_code == 200


def test_health_loads_no_model(api, weights):
    unload_networks()
    body = api.get("/api/health").json()
    assert (body["status"], body["models_loaded"]) == ("healthy", [])


def test_disk_with_no_room_for_a_request_degrades_but_leaves_ready(probe, api, weights, settings):
    room = shutil.disk_usage(settings.DATA_DIR).free
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_REQUEST_BYTES": 2 * room}
    body = api.get("/api/health").json()
    assert body["status"] == "degraded" and "DATA_DIR" in body["problems"][0]
    assert probe.get("/readyz").status_code == 200


def test_replaced_weights_are_given_another_chance(probe, damaged_weights, settings):
    (damaged_weights / f"{MODEL}.ckpt").unlink()
    shutil.copy(settings.BASE_DIR / "weights" / f"{MODEL}.safetensors", damaged_weights)
    assert probe.get("/readyz").status_code == 200


def test_models_to_preload_must_be_loaded(probe, settings, weights):
    settings.RECOGNITION = settings.RECOGNITION | {"PRELOAD_MODELS": (MODEL,)}
    unload_networks()
    assert f"being loaded: {MODEL}" in problems(probe.get("/readyz"))
    load_network(MODEL)
    assert probe.get("/readyz").status_code == 200


def test_database_that_does_not_answer_is_told(probe, api, monkeypatch):
    class Away:
        def cursor(self):
            raise DatabaseError("no such host: secret.internal")

    monkeypatch.setattr(health, "connection", Away())
    said = problems(probe.get("/readyz"))
    assert "DATABASE_URL" in said and "secret.internal" not in said
    assert api.get("/api/health").json()["status"] == "degraded"


def test_fault_of_another_model_degrades_but_leaves_ready(probe, api, weights, settings, tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    shutil.copy(find_weights(MODEL).path, folder)
    (folder / "resnet50_cosface.ckpt").write_bytes(b"no checkpoint")
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": folder}
    with pytest.raises(WeightsUnavailable):
        load_network("cosface_resnet50")
    assert probe.get("/readyz").status_code == 200
    body = api.get("/api/health").json()
    assert body["status"] == "degraded" and "cosface_resnet50" in body["problems"][0]
