"""The inbox and what is kept of searched faces for it, with drawn faces and a real Milvus Lite."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from enrollment import inbox
from enrollment.inbox import groups
from enrollment.models import Probe, ProbeChannel, SearchAnswer
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.enrollment.gallery import enroll, set_thresholds
from tests.pictures import upload

ANA, BIA, CAL = PEOPLE


@pytest.fixture(scope="module")
def photos() -> dict[tuple[int, int], bytes]:
    """Drawn photos, by person and shot."""
    return {(seed, shot): as_jpeg(draw_face(seed, shot)) for seed in PEOPLE for shot in range(3)}


@pytest.fixture
def keeping(settings, db):
    settings.KEEP_PROBES_DAYS = 3


def search(api, content: bytes, **fields):
    response = api.post("/api/milvus/search", {"image": upload(content), **fields})
    assert response.status_code == 200
    return response.json()


def test_faces_are_kept_by_choice_only_and_sealed(api, client, db, settings, photos, tmp_path):
    enroll("ana", photos[ANA, 0], use_face_detection=True)
    set_thresholds(0.999, 0.998)
    assert "answer_number" not in search(api, photos[BIA, 0])
    settings.KEEP_ANSWERS_MINUTES = 0
    client.post("/", {"images": [upload(photos[BIA, 0])]})
    assert not Probe.objects.exists()
    settings.KEEP_PROBES_DAYS = 3
    number = search(api, photos[BIA, 0])["answer_number"]
    probe = Probe.objects.get(answer__number=number)
    assert (probe.channel, probe.decision, probe.in_inbox) == ("api", "unknown", True)
    assert probe.person.person_id == "ana" and probe.group
    jpeg = inbox.read_face(probe)
    assert jpeg[:2] == b"\xff\xd8" and jpeg[:60] not in bytes(probe.picture)
    key = settings.DATA_DIR / "sealing_key"
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(inbox.SealBroken, match="sealing_key"):
        inbox.unseal(bytes(probe.picture)[:-1] + b"\0\0")
