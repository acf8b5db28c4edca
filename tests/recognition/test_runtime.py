"""The runtimes give equal embeddings, the converted form is kept for the next start, and no
telemetry is sent."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from faceproject.management.commands.serve import preload
from recognition.embedding import embed_crops
from recognition.exceptions import WeightsUnavailable
from recognition.networks import KNOWN_NETWORKS, FaceNetwork, build, load_network, loaded_names
from recognition.networks import loader as loader_module
from recognition.networks.edgeface import edgeface_xs
from recognition.networks.loader import find_weights, unload_networks
from recognition.networks.runtime import (
    LEAST_AGREEMENT,
    OpenVinoRuntime,
    TorchRuntime,
    agreement,
    convert_to_openvino,
    trial_crops,
)
from tests.conftest import ROOT
from tests.gallery_folder import run
from tests.small_network import Small

MODEL = "mobilenetv3_large"


def start_with(folder: Path) -> Path:
    """Make `folder`, with the weights of the default model in it."""
    folder.mkdir()
    shutil.copy(ROOT / "weights" / f"{MODEL}.safetensors", folder)
    return folder


@pytest.fixture
def folder(settings, data_folder: Path, tmp_path: Path) -> Path:
    """`WEIGHTS_DIR` with the default model, not loaded yet, and an empty `DATA_DIR` beside it."""
    folder = start_with(tmp_path / "weights")
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": folder}
    unload_networks()
    return folder


def build_small(_network: FaceNetwork, _path: Path) -> Small:
    return Small().eval().requires_grad_(False)


@pytest.fixture
def small(folder, monkeypatch) -> Path:
    """The same folder; its network is a small one."""
    monkeypatch.setattr(loader_module, "build", build_small)
    return folder


@pytest.fixture
def kept(small) -> Path:
    """The same folder after a first start, with the converted form."""
    load_network(MODEL)
    unload_networks()
    return small


@pytest.fixture
def no_conversion(monkeypatch) -> None:
    """Make building with torch and converting fail."""
    monkeypatch.setattr(loader_module, "build", None)
    monkeypatch.setattr(loader_module, "convert_to_openvino", None)


def forms(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("converted/*") if path.is_dir())


def crops(count: int) -> list[np.ndarray]:
    chance = np.random.default_rng(count)
    return list(chance.integers(0, 256, (count, 112, 112, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["mobilenetv3_large", "cosface_resnet50"])
def test_embeddings_are_those_of_torch(name, settings, both_models):
    fast = [embed_crops(crops(count), name).vectors for count in (1, 3, 8)]
    assert load_network(name).runtime.name.startswith("openvino ")
    unload_networks()
    settings.RECOGNITION = settings.RECOGNITION | {"NETWORK_RUNTIME": "torch"}
    torch_ones = [embed_crops(crops(count), name).vectors for count in (1, 3, 8)]
    assert load_network(name).runtime.name.startswith("torch ")
    for given, expected in zip(fast, torch_ones, strict=True):
        np.testing.assert_allclose(given, expected, atol=1e-5)
        assert agreement(given, expected) >= LEAST_AGREEMENT


def test_every_network_can_be_converted():
    torch.manual_seed(0)
    module = edgeface_xs().eval()
    converted = OpenVinoRuntime(convert_to_openvino(module), threads=1)
    assert agreement(converted.run(trial_crops()), TorchRuntime(module).run(trial_crops())) > 0.9999


def test_next_start_reads_what_the_first_one_kept(kept, no_conversion):
    (form,) = forms(kept)
    assert find_weights(MODEL).digest in form.name
    loaded = load_network(MODEL)
    assert loaded.runtime.name.startswith("openvino ") and not loaded.fallback


def test_the_first_start_converts_the_other_models_beforehand(small, monkeypatch):
    (small / "resnet50_cosface.safetensors").write_bytes(b"of another network")
    preload()
    assert loaded_names() == [MODEL, "cosface_resnet50"] and len(forms(small)) == 2
    unload_networks()
    monkeypatch.setattr(loader_module, "convert_to_openvino", None)
    preload()
    assert loaded_names() == [MODEL]


def test_weights_folder_that_cannot_be_written(small, settings, monkeypatch):
    (small / "converted").write_text("in the way, also of who may write everywhere")
    load_network(MODEL)
    assert len(forms(settings.DATA_DIR)) == 1
    unload_networks()
    monkeypatch.setattr(loader_module, "convert_to_openvino", None)
    assert not load_network(MODEL).fallback


def test_nothing_can_be_written_anywhere(small, settings):
    for place in (small, settings.DATA_DIR):
        (place / "converted").write_text("in the way")
    assert not load_network(MODEL).fallback


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda form: os.truncate(form / "network.bin", 1000), id="cut short"),
        pytest.param(lambda form: (form / "network.xml").write_text("<net"), id="no XML"),
        pytest.param(lambda form: (form / "expected.npy").unlink(), id="a part is gone"),
        pytest.param(
            lambda form: np.save(form / "expected.npy", np.ones((4, 512), np.float32)),
            id="of other weights",
        ),
        pytest.param(
            lambda form: (form / "network.bin").write_bytes(
                bytes((form / "network.bin").stat().st_size)
            ),
            id="zeros",
        ),
    ],
)
def test_damaged_form_is_made_anew(kept, damage, monkeypatch):
    (form,) = forms(kept)
    expected = np.load(form / "expected.npy")
    damage(form)
    loaded = load_network(MODEL)
    assert not loaded.fallback
    assert agreement(loaded.runtime.run(trial_crops()), expected) >= LEAST_AGREEMENT
    unload_networks()
    monkeypatch.setattr(loader_module, "convert_to_openvino", None)
    assert not load_network(MODEL).fallback


def test_forms_of_what_is_gone_are_removed(kept):
    (form,) = forms(kept)
    older, another = form.with_name(f"{MODEL}-0123-openvino-1-1"), form.with_name("other-0123")
    older.mkdir()
    another.mkdir()
    (form / "expected.npy").unlink()
    load_network(MODEL)
    assert forms(kept) == [form, another]


def test_two_weights_of_one_model_keep_their_forms(kept):
    """The user's checkpoint and the bundled file, which is used again when the checkpoint is
    removed."""
    state = build(KNOWN_NETWORKS[MODEL], kept / f"{MODEL}.safetensors").state_dict()
    torch.save(state, kept / f"{MODEL}.ckpt")
    load_network(MODEL)
    assert len(forms(kept)) == 2


def runtimes(api) -> list[dict[str, str]]:
    return api.get("/api/health").json()["runtimes"]


@pytest.mark.django_db
def test_health_names_what_answers(api, weights):
    unload_networks()
    load_network(weights)
    (runtime,) = runtimes(api)
    assert runtime["runtime"].startswith("openvino 20")
    assert (runtime["model"], runtime["device"], runtime["fallback"]) == (weights, "cpu", "")


def fail(*_given, **_options):
    raise RuntimeError("no such operation")


def test_weights_replaced_while_they_are_read_are_not_kept_under_the_former_name(
    small, monkeypatch
):
    """The form of the new ones, called by the digest of the old, answered when these came back."""
    path, former = small / f"{MODEL}.safetensors", find_weights(MODEL)

    def replaced_meanwhile(network: FaceNetwork, path: Path) -> Small:
        if find_weights(MODEL) == former:
            path.write_bytes(b"others")
        return build_small(network, path)

    monkeypatch.setattr(loader_module, "build", replaced_meanwhile)
    assert load_network(MODEL).weights == find_weights(MODEL) != former
    (form,) = forms(path.parent)
    assert former.digest not in form.name


def test_weights_that_load_at_the_second_try_are_not_called_damaged(small, settings, monkeypatch):
    settings.RECOGNITION = settings.RECOGNITION | {"NETWORK_RUNTIME": "torch"}

    def fail_once(network: FaceNetwork, path: Path) -> Small:
        monkeypatch.setattr(loader_module, "build", build_small)
        raise WeightsUnavailable("the disk did not answer")

    monkeypatch.setattr(loader_module, "build", fail_once)
    with pytest.raises(WeightsUnavailable):
        load_network(MODEL)
    assert loader_module.load_failure(MODEL)
    load_network(MODEL)
    assert loader_module.load_failure(MODEL) is None


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "stand_in", "why"),
    [
        ("openvino_version", lambda: None, "not installed"),
        ("convert_to_openvino", fail, "does not run"),
        ("agreement", lambda *_embeddings: 0.9999, "gives other answers"),
    ],
)
def test_torch_answers_where_the_other_cannot(api, small, monkeypatch, name, stand_in, why):
    monkeypatch.setattr(loader_module, name, stand_in)
    vectors = embed_crops(crops(2), MODEL).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    (runtime,) = runtimes(api)
    assert runtime["runtime"].startswith("torch ") and why in runtime["fallback"]
    assert forms(small) == []


@pytest.mark.django_db
def test_torch_answers_where_it_is_chosen(api, folder, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"NETWORK_RUNTIME": "torch"}
    load_network(MODEL)
    (runtime,) = runtimes(api)
    assert runtime["runtime"].startswith("torch ") and "NETWORK_RUNTIME" in runtime["fallback"]


def test_threads_share_one_network(weights):
    batches = [crops(count) for count in (1, 2, 3, 1, 2, 3)]
    expected = [embed_crops(batch, weights).vectors for batch in batches]
    with ThreadPoolExecutor(len(batches)) as threads:
        given = threads.map(lambda batch: embed_crops(batch, weights).vectors, batches)
        for vectors, right in zip(given, expected, strict=True):
            np.testing.assert_allclose(vectors, right, atol=1e-5)


class Turning(torch.nn.Module):
    """A module that returns some pixels; with `wrong` it reverses them in half precision."""

    def __init__(self, wrong: bool) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        embeddings = images[:, :, ::28, ::28].flatten(1)
        return embeddings.flip(1) if self.wrong and images.dtype is torch.float16 else embeddings


@pytest.mark.parametrize("wrong", [False, True])
def test_half_precision_only_where_it_changes_nothing(wrong, monkeypatch):
    """The decision for a GPU, made on the CPU."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    runtime = TorchRuntime(Turning(wrong), "cpu:0")
    plain = TorchRuntime(Turning(wrong)).run(trial_crops())
    given = runtime.run(trial_crops())
    assert given.dtype == np.float32 and agreement(given, plain) >= LEAST_AGREEMENT
    assert (given == plain).all() == wrong


def test_agreement_is_the_worst_of_all():
    one = np.eye(2, 3, dtype=np.float32)
    assert agreement(one, 5 * one) == pytest.approx(1)
    assert agreement(one, one[::-1]) == 0
    assert agreement(one, np.zeros((2, 3), np.float32)) == 0
    assert agreement(np.full((2, 3), np.nan, np.float32), one) == 0


SCRIPT = """
import socket, sys
def refuse(*address):
    raise SystemExit(f"the network was used: {address}")
socket.socket.connect = socket.getaddrinfo = refuse
import django
django.setup()
from recognition.networks import load_network, loader
def build(network, path):
    from tests.small_network import Small
    return Small().eval()
loader.build = build
loaded = load_network("mobilenetv3_large")
from openvino.tools.ovc import telemetry_utils
import json
print(json.dumps([loaded.runtime.name, "torch" in sys.modules, telemetry_utils.tm.__name__,
                  [name for name in sys.modules if name.startswith("openvino_telemetry.")]]))
"""


def test_nothing_is_told_to_anybody_and_torch_is_imported_once(folder, tmp_path):
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "faceproject.settings",
        "WEIGHTS_DIR": str(folder),
        "DATA_DIR": str(tmp_path / "data"),
        "HOME": str(tmp_path / "home"),
    }
    for with_torch in (True, False):
        printed = run(environment, SCRIPT)
        name, torch_imported, telemetry, sender = json.loads(printed.splitlines()[-1])
        assert name.startswith("openvino ")
        assert torch_imported is with_torch
        assert telemetry == "openvino.tools.ovc.telemetry_stub"
        assert sender == []
    assert not (tmp_path / "home").exists()
