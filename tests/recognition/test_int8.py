"""Networks in int8: weights of their own, refused where they do not belong or do not run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from enrollment.backups.checks import _WEIGHTS
from enrollment.backups.snapshot import _add_weights
from recognition.checks import check_int8
from recognition.conf import get_settings
from recognition.decision import thresholds_of
from recognition.embedding import embed_crops
from recognition.exceptions import WeightsUnavailable
from recognition.networks import find_weights, has_weights, load_network, loader, weights
from recognition.networks.descriptor import read_descriptor
from recognition.networks.int8 import made_from
from recognition.networks.loader import load_failure
from recognition.networks.weights import file_hash, int8_file, weights_files
from tests.conftest import ROOT

MODEL = "mobilenetv3_large"


def set_to(settings, **values) -> None:
    settings.RECOGNITION = settings.RECOGNITION | values


@pytest.fixture
def chosen(both_models, settings) -> None:
    """A server with the bundled weights, and the default model in int8."""
    set_to(settings, INT8_MODELS=(MODEL,))


@pytest.fixture
def folder(settings, tmp_path) -> Path:
    """The same with weights that a test may change."""
    for file in (ROOT / "weights").glob(f"{MODEL}.*"):
        shutil.copy(file, tmp_path)
    set_to(settings, WEIGHTS_DIR=tmp_path, INT8_MODELS=(MODEL,))
    return tmp_path


@pytest.mark.django_db
def test_int8_answers_as_weights_of_its_own(api, chosen, settings):
    crops = np.random.default_rng(0).integers(0, 256, (8, 7, 7, 3), dtype=np.uint8)
    crops = crops.repeat(16, axis=1).repeat(16, axis=2)
    quick = embed_crops(crops, MODEL)
    (runtime,) = api.get("/api/health").json()["runtimes"]
    assert runtime["runtime"].startswith("openvino ") and runtime["runtime"].endswith(", int8")
    thresholds = thresholds_of(MODEL, quick.fingerprint)

    set_to(settings, INT8_MODELS=())
    exact = embed_crops(crops, MODEL)
    assert quick.fingerprint != exact.fingerprint
    assert thresholds and thresholds != thresholds_of(MODEL, exact.fingerprint)
    assert thresholds_of(MODEL, quick.fingerprint) is None  # not in use any more
    cosines = (quick.vectors * exact.vectors).sum(1)
    assert 0.9 < cosines.mean() < 0.9999


@pytest.mark.parametrize("model", [MODEL, "cosface_resnet50"])
def test_bundled_file_belongs_to_the_bundled_weights(both_models, model):
    """After new weights it is made anew: training/README.md says how."""
    file, (source, *_others) = int8_file(model), weights_files(model)
    assert made_from(file.path, file.digest) == file_hash(source.path)
    assert read_descriptor(file).match


def test_mirror_images_have_a_fingerprint_of_their_own(chosen, settings):
    plain = find_weights(MODEL).fingerprint
    set_to(settings, FLIP_TTA=True)
    assert find_weights(MODEL).fingerprint == f"{plain}_flip"


REFUSALS = {
    "missing": (lambda path, settings, patch: path.unlink(), "int8.npz is missing"),
    "of other weights": (
        lambda path, settings, patch: (path.parent / f"{MODEL}.ckpt").write_bytes(b"others"),
        f"made from other weights than {MODEL}.ckpt",
    ),
    "cut short": (lambda path, settings, patch: os.truncate(path, 10_000), "is damaged"),
    "by torch": (
        lambda path, settings, patch: set_to(settings, NETWORK_RUNTIME="torch"),
        "NETWORK_RUNTIME is 'torch'",
    ),
    "without OpenVINO": (
        lambda path, settings, patch: patch.setattr(weights, "openvino_version", lambda: None),
        "openvino is not installed",
    ),
    "on a GPU": (
        lambda path, settings, patch: patch.setattr(weights, "choose_device", lambda _: "cuda"),
        "computes on cuda",
    ),
}


@pytest.mark.parametrize(("happens", "said"), REFUSALS.values(), ids=REFUSALS)
def test_never_replaced_by_float32(folder, settings, monkeypatch, happens, said):
    happens(folder / f"{MODEL}.int8.npz", settings, monkeypatch)
    with pytest.raises(WeightsUnavailable, match=said) as refused:
        load_network(MODEL)
    assert "INT8_MODELS" in str(refused.value) and "manage.py reindex" in str(refused.value)
    assert not has_weights(MODEL)
    (error,) = check_int8(get_settings())
    assert error.id == "recognition.E013" and error.msg == str(refused.value)


@pytest.mark.django_db
def test_processor_on_which_it_gives_other_embeddings(api, chosen, monkeypatch):
    def refuse(path):
        raise ValueError("a cosine of 0.9")

    monkeypatch.setattr(loader, "int8_runtime", refuse)
    with pytest.raises(WeightsUnavailable, match="other embeddings on this processor"):
        load_network(MODEL)
    assert load_failure(MODEL) in api.get("/api/health").json()["problems"]


def test_verify_weights_lists_it(folder, settings, capsys):
    call_command("verify_weights", MODEL)
    output = capsys.readouterr().out
    assert output.index(f"{MODEL}.int8.npz") < output.index(f"{MODEL}.safetensors")
    assert output.count("yes, 512 numbers") == 2 and "the file above comes first" in output

    (folder / f"{MODEL}.safetensors").unlink()
    (folder / f"{MODEL}.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(CommandError, match="2 weights files do not load"):
        call_command("verify_weights", MODEL)
    assert "made from other weights" in capsys.readouterr().out


def test_fetch_weights_lists_what_it_gives_and_costs(folder, capsys):
    call_command("fetch_weights", MODEL, list=True)
    output = capsys.readouterr().out
    assert f"{MODEL}.int8.npz (installed)" in output and f"INT8_MODELS={MODEL}" in output
    assert "reindex" in output and "non-commercial" in output and " MB" in output
    call_command("fetch_weights", list=True)
    output = capsys.readouterr().out
    assert "yunet" in output and f"{MODEL}.int8.npz" in output
    assert "python -m training.quantise cosface_resnet50" in output


def test_a_file_that_cannot_be_read_is_told_in_a_sentence(folder):
    (folder / f"{MODEL}.int8.npz").unlink()
    (folder / f"{MODEL}.int8.npz").mkdir()
    for command, options in (("fetch_weights", {"list": True}), ("verify_weights", {})):
        with pytest.raises(CommandError, match="int8.npz cannot be read"):
            call_command(command, MODEL, **options)


def test_backup_holds_what_it_was_made_from_too(chosen):
    kept = []
    archive = SimpleNamespace(add=lambda name, content: kept.append(name))
    group = {"model": MODEL, "fingerprint": find_weights(MODEL).fingerprint}
    _add_weights(archive, SimpleNamespace(vectors=[group]))
    files = [f"{MODEL}.int8.npz", f"{MODEL}.safetensors"]
    assert kept == [f"weights/{file}{end}" for file in files for end in ("", ".json")]
    assert all(_WEIGHTS.fullmatch(name.removeprefix("weights/")) for name in kept)
