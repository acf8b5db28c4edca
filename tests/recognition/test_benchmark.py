"""The benchmark measures every step, reports its conditions, and does not change the installation."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from recognition.benchmark import DETECTED_SIDES, LEAST_RUNS
from recognition.conf import get_settings
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face

MODEL = "mobilenetv3_large"


@pytest.fixture
def benchmark(weights, tmp_path, monkeypatch, capsys):
    """Run the command as briefly as possible; return its output and its JSON."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def run(*arguments: str) -> tuple[str, dict]:
        file = tmp_path / "figures.json"
        call_command("benchmark", *arguments, "--seconds=0", f"--model={MODEL}", f"--json={file}")
        return capsys.readouterr().out, json.loads(file.read_text())

    return run


def test_every_step_is_measured(benchmark, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"EMBED_BATCH_SIZE": 2}
    printed, figures = benchmark("--gallery", "20", "300")

    assert [(t["step"], t["size"], t["model"]) for t in figures["timings"]] == [
        *(("detect", side, None) for side in DETECTED_SIDES),
        ("align", None, None),
        ("embed", 1, MODEL),
        ("embed", 2, MODEL),
        ("picture_to_embedding", None, MODEL),
        ("search", 20, None),
        ("search", 300, None),
    ]
    for timing in figures["timings"]:
        things = timing["size"] if timing["step"] == "embed" else 1
        assert timing["runs"] >= LEAST_RUNS
        assert 0 < timing["best_ms"] <= timing["median_ms"]
        assert timing["per_second"] * timing["median_ms"] == pytest.approx(1000 * things)
    assert list(figures["machine"]["devices"]) == [MODEL]
    assert "a made-up picture that shows nobody" in printed
    assert printed.count(" ms ") == 2 * len(figures["timings"])
    assert "embed 2 faces at once" in printed and "search among 300 vectors" in printed


def test_photos_are_counted_by_whether_a_face_is_found(benchmark, tmp_path, picture):
    folder = tmp_path / "photos" / "ana"
    folder.mkdir(parents=True)
    (folder / "face.jpg").write_bytes(as_jpeg(draw_face(PEOPLE[0])))
    (folder / "wall.jpg").write_bytes(picture)

    printed, _figures = benchmark(str(folder.parent), "--gallery")

    assert "With 2 pictures; in 1 of them a face is found." in printed
    assert "search among" not in printed


def test_the_gallery_is_not_touched_and_nothing_is_left_behind(benchmark, tmp_path):
    benchmark("--gallery", "20")

    assert not Path(get_settings().milvus_uri).exists()
    assert not list((tmp_path / "temporary").iterdir())


def test_what_cannot_be_measured_is_told(benchmark, tmp_path, picture):
    with pytest.raises(CommandError, match="neither a folder nor a zip archive"):
        benchmark(str(tmp_path / "nowhere"))
    (tmp_path / "bad.jpg").write_bytes(picture[:-400])
    with pytest.raises(CommandError, match="damaged or incomplete"):
        benchmark(str(tmp_path))


@pytest.mark.parametrize(
    "argument", ["--gallery=0", "--gallery=many", "--seconds=-1", "--seconds=nan"]
)
def test_senseless_numbers_are_refused(benchmark, argument):
    with pytest.raises(CommandError, match="is no (whole )?number of"):
        benchmark(argument)


def test_a_model_without_weights_is_named(benchmark, no_weights):
    with pytest.raises(CommandError, match=f"{MODEL}' has no weights"):
        benchmark("--gallery")
