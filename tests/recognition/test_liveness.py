"""Liveness: faces before the camera and pictures of pictures, by the API and on the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from django.core.management import CommandError, call_command

from faceproject.management.commands.serve import preload
from recognition.detection import Face, detect_faces
from recognition.exceptions import LivenessUnavailable
from recognition.extras import EXTRAS
from recognition.imaging import read_image
from recognition.liveness import check, has_liveness, liveness_of, load_liveness
from recognition.liveness.check import surroundings
from recognition.liveness.minifasnet import v1se, v2
from recognition.management.commands import fetch_weights
from recognition.networks.loader import unload_networks
from tests.conftest import MODELS_DIR, ROOT
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group
from tests.pictures import draw_picture, upload

FILES = tuple(EXTRAS["liveness"].published)
ANA = as_jpeg(draw_face(PEOPLE[0]))


class Opinion(torch.nn.Module):
    """A network that says the same of every face."""

    def __init__(self) -> None:
        super().__init__()
        self.says = torch.nn.Parameter(torch.zeros(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.says + 0 * images.mean((1, 2, 3))[:, None]).softmax(1)


def own_weights(folder: Path) -> Path:
    """Make a WEIGHTS_DIR with the bundled weights of the default model and their converted form."""
    (folder / "converted").mkdir(parents=True)
    for inside in (ROOT / "weights", ROOT / "weights" / "converted"):
        for path in inside.glob("mobilenetv3_large*"):
            (folder / path.relative_to(ROOT / "weights")).symlink_to(path)
    return folder


@pytest.fixture
def folder(settings, weights, tmp_path: Path) -> Path:
    """An own WEIGHTS_DIR with the bundled weights."""
    folder = own_weights(tmp_path / "weights")
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": folder}
    return folder


@pytest.fixture
def say(folder: Path, monkeypatch) -> Callable[[bool], None]:
    """Put networks there that take every face for live, or none."""
    builder = f"{__name__}.{Opinion.__name__}"
    networks = tuple(replace(network, builder=builder) for network in check.NETWORKS)
    monkeypatch.setattr(check, "NETWORKS", networks)

    def say(live: bool) -> None:
        says = torch.zeros(3)
        says[1 if live else 2] = 5
        for name in FILES:
            torch.save({"module.says": says}, folder / "part")
            (folder / "part").replace(folder / name)

    return say


@pytest.fixture(scope="module")
def with_published(_converted, tmp_path_factory) -> Path:
    """A WEIGHTS_DIR with the networks as they are published, which are converted once."""
    folder = own_weights(tmp_path_factory.mktemp("published") / "weights")
    for name in FILES:
        if not (MODELS_DIR / name).is_file():
            pytest.skip(
                f"{name} is not in {MODELS_DIR}: set MODELS_DIR to the folder that holds it."
            )
        (folder / name).symlink_to(MODELS_DIR / name)
    return folder


@pytest.fixture
def published(settings, with_published: Path) -> Path:
    """The samples of the published networks' authors; the server has the networks."""
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": with_published}
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


IN_ANOTHER_PROCESS = """
import json, sys
import django
django.setup()
import numpy as np
from recognition.detection import Face
from recognition.liveness import liveness_of
faces = [Face(box, 1.0, np.zeros((5, 2), np.float32)) for box in json.loads(sys.argv[2])]
print(json.dumps([liveness_of(np.load(sys.argv[1]), faces), "torch" in sys.modules]))
"""


def test_answers_are_those_of_torch_which_a_later_process_does_without(folder, settings, tmp_path):
    for seed, (name, build) in enumerate(zip(FILES, (v2, v1se), strict=True)):
        torch.manual_seed(seed)
        network = build()
        with torch.no_grad():
            network.prob.weight.mul_(200)  # so that it does not say the same of all
        torch.save(network.state_dict(), folder / name)
    cells = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    picture = cells.repeat(20, axis=0).repeat(20, axis=1)
    boxes = [(10.0 * n, 5.0 * n, 5.0 + 5 * n, 10.0 + 5 * n) for n in range(10)]
    faces = [Face(box, 1.0, np.zeros((5, 2), np.float32)) for box in boxes]
    load_liveness()  # converts
    np.save(tmp_path / "picture.npy", picture)
    result = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, tmp_path / "picture.npy", json.dumps(boxes)],
        cwd=ROOT,
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "faceproject.settings",
            "ENV_FILE": os.devnull,
            "DATA_DIR": str(tmp_path / "data"),
            "WEIGHTS_DIR": str(folder),
            "LOG_LEVEL": "WARNING",
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    told, imported_torch = json.loads(result.stdout)
    assert not imported_torch
    settings.RECOGNITION = settings.RECOGNITION | {"NETWORK_RUNTIME": "torch"}
    unload_networks()
    by_torch = liveness_of(picture, faces)
    assert np.ptp(by_torch) > 0.01
    np.testing.assert_allclose(told, by_torch, rtol=0, atol=1e-4)


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


def health(api) -> tuple[str, bool, list[str]]:
    """Return the status, whether the check can be asked for, and by what its networks run."""
    answer = api.get("/api/health").json()
    runtimes = {
        f"{each['model']} by {each['runtime'].split()[0]}{each['fallback'] and ', a fallback'}"
        for each in answer["runtimes"]
        if each["model"].startswith("minifasnet")
    }
    return answer["status"], answer["liveness_available"], sorted(runtimes)


@pytest.mark.django_db
@pytest.mark.parametrize("content", [b"", b"no network", None])
def test_damaged_networks_are_not_used_and_whole_ones_are_again(api, folder, say, caplog, content):
    say(True)
    assert liveness_of(read_image(ANA).pixels, []) == []
    if content is None:
        torch.save({"module.conv1.conv.weight": torch.zeros(1)}, folder / FILES[0])
    else:
        (folder / FILES[0]).write_bytes(content)
    assert has_liveness()
    with pytest.raises(LivenessUnavailable, match="cannot be loaded"):
        liveness_of(read_image(ANA).pixels, [])
    assert FILES[0] in caplog.text
    assert health(api)[:2] == ("degraded", False)
    assert "liveness" in api.get("/api/health").json()["problems"][0]
    say(True)
    assert health(api)[:2] == ("healthy", True)
    assert liveness_of(read_image(ANA).pixels, []) == []
    assert health(api)[:2] == ("healthy", True)


@pytest.mark.django_db
def test_replaced_networks_answer_from_the_next_picture_on(api, say):
    face = {"image": upload(ANA), "check_liveness": "true"}
    for live in (True, False, True):
        say(live)
        answer = api.post("/api/embedding", face | {"image": upload(ANA)}).json()
        assert (answer["face"]["quality"]["liveness"] > 0.5) is live


@pytest.mark.django_db
def test_health_tells_what_the_check_runs_by(api, folder, say, settings):
    assert health(api) == ("healthy", False, [])
    say(True)
    (folder / FILES[1]).unlink()
    assert health(api) == ("degraded", False, [])
    say(True)
    assert health(api) == ("healthy", True, [])  # nothing is loaded for a probe
    preload()
    by = ["minifasnet_v1se by openvino", "minifasnet_v2 by openvino"]
    assert health(api) == ("healthy", True, by)
    settings.RECOGNITION = settings.RECOGNITION | {"NETWORK_RUNTIME": "torch"}
    unload_networks()
    load_liveness()
    by = [f"minifasnet_{name} by torch, a fallback" for name in ("v1se", "v2")]
    assert health(api) == ("healthy", True, by)


def test_fetched_networks_are_ready(folder, say, monkeypatch, capsys):
    """What they are converted to is kept by whoever fetches them, not by the server."""

    def put(url: str, target: Path, **options: object) -> tuple[Path, str]:
        say(True)
        return target, "the hash"

    monkeypatch.setattr(fetch_weights, "install", put)
    call_command("fetch_weights", "liveness", no_progress=True)
    assert "check_liveness=true" in capsys.readouterr().out
    forms = [path.name for path in (folder / "converted").glob("*MiniFASNet*")]
    assert sorted(name.split("-")[0] + ".pth" for name in forms) == sorted(FILES)


@pytest.mark.django_db(transaction=True)
def test_server_that_looks_for_no_faces_has_none(api, say, settings, monkeypatch, capsys):
    say(True)
    settings.RECOGNITION = settings.RECOGNITION | {"DETECTOR": "none"}
    call_command("diagnose")
    assert "DETECTOR=none" in capsys.readouterr().out
    monkeypatch.setattr(fetch_weights, "install", lambda url, target, **_more: (target, "the hash"))
    with pytest.raises(CommandError, match="DETECTOR=none"):
        call_command("fetch_weights", "liveness", no_progress=True)
    response = api.post("/api/embedding", {"image": upload(ANA), "check_liveness": "true"})
    assert response.status_code == 503 and "DETECTOR=none" in response.json()["message"]
    assert health(api) == ("healthy", False, [])


def test_server_starts_beside_networks_that_cannot_be_used(folder, say, caplog):
    say(True)
    (folder / FILES[1]).write_bytes(b"no network")
    preload()
    assert "The liveness check is not loaded at the start" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_diagnose_names_what_runs_it(folder, say, capsys):
    call_command("diagnose")
    assert "fetch_weights liveness" in capsys.readouterr().out
    say(True)
    call_command("diagnose")
    assert "minifasnet_v2: openvino" in capsys.readouterr().out
    (folder / FILES[0]).unlink()
    with pytest.raises(CommandError, match="Liveness"):
        call_command("diagnose")


@pytest.mark.django_db
def test_crop_and_embedding_tell_no_liveness(api, say, weights):
    say(True)
    crop = {"image": upload(ANA), "use_face_detection": "false", "check_liveness": "true"}
    vector = {"embedding": str([1.0] * 512), "check_liveness": "true"}
    for call, fields in (("embedding", crop), ("milvus/search", crop), ("milvus/search", vector)):
        response = api.post(f"/api/{call}", fields)
        assert response.status_code == 400 and "liveness" in response.json()["message"]


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["/", "/compare"])
def test_pages_offer_it_where_its_networks_are(local, say, weights, page):
    names = ("images",) if page == "/" else ("source", "target")
    fields = {"model": weights, "top_k": 5}

    def answer(**more: str):
        return local.post(page, fields | {name: upload(ANA) for name in names} | more)

    assert "check_liveness" not in local.get(page).text
    assert answer().status_code == 200
    # The networks were deleted after the page was shown.
    refused = answer(check_liveness="on")
    assert refused.status_code == 503
    assert refused.text.count(">The search for pictures of pictures is not ready<") == 1
    say(True)
    assert "check_liveness" in local.get(page).text
    assert answer(check_liveness="on").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize("is_live", [True, False])
def test_comparison_says_which_face_may_be_a_picture_of_a_picture(local, say, weights, is_live):
    say(is_live)
    sentences = ("Nothing tells that it is a picture of", "It may be a picture of a picture")
    for asked in ({}, {"check_liveness": "on"}):
        both = {"source": upload(ANA), "target": upload(ANA), "model": weights}
        page = local.post("/compare", both | asked).text
        said = [page.count(sentence) for sentence in sentences]
        assert (">Trust the answer less: what speaks" in page) is bool(asked and not is_live)
        assert said == ([0, 0] if not asked else [2, 0] if is_live else [0, 2])


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
        assert ("Nothing tells that it is a picture of" in page) is bool(asked and is_live)
