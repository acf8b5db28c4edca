"""Liveness: faces before the camera and pictures of pictures, by the API and on the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recognition.detection import Face, detect_faces
from recognition.exceptions import LivenessUnavailable
from recognition.extras import EXTRAS
from recognition.imaging import read_image
from recognition.liveness import has_liveness, liveness_of
from recognition.liveness.check import surroundings
from recognition.liveness.minifasnet import V1SE, V2, MiniFasNet
from tests.conftest import MODELS_DIR, ROOT
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group
from tests.pictures import draw_picture, upload

FILES = tuple(EXTRAS["liveness"].published)
ANA = as_jpeg(draw_face(PEOPLE[0]))


@pytest.fixture
def folder(settings, tmp_path: Path) -> Path:
    """An own WEIGHTS_DIR with the bundled weights."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for file in (ROOT / "weights").iterdir():
        (folder / file.name).symlink_to(file)
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": folder}
    return folder


@pytest.fixture
def say(folder: Path) -> Callable[[bool], None]:
    """Put networks there that take every face for live, or none."""

    def say(live: bool) -> None:
        for name, widths in zip(FILES, (V2, V1SE), strict=True):
            network = MiniFasNet(widths)
            with torch.no_grad():
                network.bn.bias.fill_(1.0)
                network.bn.weight.zero_()
                network.prob.weight.fill_(-0.1)
                network.prob.weight[1 if live else 2].fill_(0.1)
            saved = {f"module.{key}": value for key, value in network.state_dict().items()}
            torch.save(saved, folder / name)

    return say


@pytest.fixture
def published(folder: Path) -> Path:
    """The networks as they are published, and their authors' samples."""
    for name in FILES:
        if not (MODELS_DIR / name).is_file():
            pytest.skip(
                f"{name} is not in {MODELS_DIR}: set MODELS_DIR to the folder that holds it."
            )
        (folder / name).symlink_to(MODELS_DIR / name)
    return MODELS_DIR / "liveness_samples"


@pytest.mark.parametrize("quarters", [0, 1])
@pytest.mark.parametrize(("sample", "is_live"), [("T1", True), ("F1", False), ("F2", False)])
def test_published_networks_tell_the_samples_of_their_authors_apart(
    published, sample, is_live, quarters
):
    picture = read_image((published / f"image_{sample}.jpg").read_bytes()).pixels
    picture = np.ascontiguousarray(np.rot90(picture, quarters))
    (face,) = detect_faces(picture)[:1]
    assert bool(face.rotation) is bool(quarters)
    (liveness,) = liveness_of(picture, [face])
    assert liveness > 0.99 if is_live else liveness < 0.3


def test_networks_see_the_face_with_what_is_around_it():
    ramp = np.arange(200, dtype=np.uint8)
    picture = np.stack([*np.meshgrid(ramp, ramp), np.zeros((200, 200), np.uint8)], axis=-1)
    nowhere = np.zeros((5, 2), np.float32)

    def corners(
        box: tuple[float, float, float, float], times: float, rotation: int = 0
    ) -> list[int]:
        seen = surroundings(picture, Face(box, 1.0, nowhere, rotation), times)
        assert seen.shape == (80, 80, 3)
        return [*map(int, (*seen[0, 0, :2], *seen[-1, -1, :2]))]

    assert corners((80, 80, 40, 40), 2) == pytest.approx([60, 60, 140, 140], abs=1)
    assert corners((80, 80, 40, 40), 2, 90) == pytest.approx([60, 140, 140, 60], abs=1)
    assert corners((0, 80, 40, 40), 2) == pytest.approx([0, 60, 80, 140], abs=1)  # moved inside
    assert corners((60, 60, 80, 80), 4) == pytest.approx([0, 0, 199, 199], abs=1)  # all there is


@pytest.mark.django_db
@pytest.mark.parametrize("is_live", [True, False])
def test_whoever_asks_is_told_of_each_face(api, say, weights, is_live):
    say(is_live)
    group = as_jpeg(draw_group(PEOPLE))
    fields = {"image": upload(group), "check_liveness": "true"}
    faces = api.post("/api/detect", fields).json()["faces"]
    assert len(faces) == len(PEOPLE)
    for face in faces:
        assert (face["quality"]["liveness"] > 0.5) is is_live
        codes = [reason["code"] for reason in face["quality"]["reasons"]]
        assert ("not_live" in codes) is not is_live
    answer = api.post("/api/milvus/search", {"image": upload(ANA), "check_liveness": "true"}).json()
    assert (answer["face"]["quality"]["liveness"] > 0.5) is is_live
    both = {"source_image": upload(ANA), "target_image": upload(ANA), "check_liveness": "true"}
    answer = api.post("/api/verify", both).json()
    for face in (answer["source"]["face"], answer["target"]["face"]):
        assert (face["quality"]["liveness"] > 0.5) is is_live


@pytest.mark.django_db
def test_nobody_else_is_told(api, say, weights):
    say(False)
    quality = api.post("/api/embedding", {"image": upload(ANA)}).json()["face"]["quality"]
    assert quality["liveness"] is None and "not_live" not in str(quality["reasons"])


@pytest.mark.django_db
def test_picture_without_a_face_has_no_liveness(api, say, weights):
    say(True)
    fields = {"image": upload(draw_picture()), "check_liveness": "true"}
    answer = api.post("/api/embedding", fields).json()
    assert not answer["face_detected"] and answer["quality"]["liveness"] is None


@pytest.mark.django_db
@pytest.mark.parametrize("call", ["detect", "embedding", "embeddings/batch", "milvus/search"])
def test_missing_networks_are_said_to_be_missing(api, folder, weights, call):
    name = "images" if "batch" in call else "image"
    response = api.post(f"/api/{call}", {name: upload(ANA), "check_liveness": "true"})
    assert response.status_code == 503
    assert response.json()["error"] == "liveness_unavailable"
    assert "fetch_weights liveness" in response.json()["message"]


@pytest.mark.parametrize("content", [b"", b"no network", None])
def test_damaged_networks_are_not_used(folder, say, caplog, content):
    say(True)
    if content is None:
        torch.save({"module.conv1.conv.weight": torch.zeros(1)}, folder / FILES[0])
    else:
        (folder / FILES[0]).write_bytes(content)
    assert has_liveness()
    with pytest.raises(LivenessUnavailable):
        liveness_of(read_image(ANA).pixels, [])
    assert FILES[0] in caplog.text


@pytest.mark.django_db
def test_crop_and_embedding_tell_no_liveness(api, say, weights):
    say(True)
    crop = {"image": upload(ANA), "use_face_detection": "false", "check_liveness": "true"}
    vector = {"embedding": str([1.0] * 512), "check_liveness": "true"}
    for call, fields in (("embedding", crop), ("milvus/search", crop), ("milvus/search", vector)):
        response = api.post(f"/api/{call}", fields)
        assert response.status_code == 400 and "liveness" in response.json()["message"]


@pytest.mark.django_db
def test_page_offers_it_where_its_networks_are(local, folder, weights):
    assert "check_liveness" not in local.get("/").content.decode()
    assert local.post("/", {"images": upload(ANA), "model": weights, "top_k": 5}).status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize("is_live", [True, False])
def test_page_says_which_faces_may_be_pictures_of_pictures(local, api, say, weights, is_live):
    say(is_live)
    api.post("/api/milvus/insert", {"images": upload(ANA), "person_id": "ana"})
    assert "check_liveness" in local.get("/").content.decode()
    fields = {"model": weights, "top_k": 5}
    for asked in ({}, {"check_liveness": "on"}):
        page = local.post("/", {"images": upload(ANA), **fields, **asked}).content.decode()
        assert ("It may be a picture of a picture" in page) is bool(asked and not is_live)
