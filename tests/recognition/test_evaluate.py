"""Pairs, figures and thresholds, on drawn pictures and, if available, on faces."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from recognition.decision import thresholds_of
from recognition.evaluation import (
    EvaluationError,
    Pair,
    embedding,
    identification,
    impostor_scores,
    open_pictures,
    propose_thresholds,
    read_pairs,
    threshold_of_impostors,
)
from recognition.evaluation.conditions import CONDITIONS
from recognition.management.commands import evaluate
from recognition.networks import find_weights
from recognition.networks.descriptor import read_descriptor

MODEL = "mobilenetv3_large"


@pytest.fixture
def own_weights(settings, weights, tmp_path):
    """A folder with copies of the weights and of their converted form that the test may change."""
    source, folder = find_weights(weights).path, tmp_path / "weights"
    folder.mkdir()
    shutil.copy(source, folder)
    for form in source.parent.glob(f"converted/{source.stem}-*"):  # to convert takes seconds
        shutil.copytree(form, folder / "converted" / form.name)
    settings.RECOGNITION = {**settings.RECOGNITION, "WEIGHTS_DIR": folder}
    return folder


@pytest.fixture
def people(tmp_path, draw_picture):
    """Twelve synthetic persons with two nearly identical drawings each, one folder a person."""
    root = tmp_path / "people"
    for number in range(12):
        folder = root / f"Person_{number}"
        folder.mkdir(parents=True)
        for copy in (1, 2):
            colour = (number * 20, 255 - number * 20, (number * 77) % 256)
            content = draw_picture(seed=number, colour=colour, size=(112 + copy, 112))
            (folder / f"Person_{number}_{copy:04d}.png").write_bytes(content)
    return root


@pytest.fixture
def pairs(tmp_path):
    """All genuine pairs of `people`, and as many impostor pairs."""
    path = tmp_path / "pairs.csv"
    rows = [f"Person_{n}_0001,Person_{n}_0002,1" for n in range(12)]
    rows += [f"Person_{n}_0001,Person_{(n + 1) % 12}_0002,0" for n in range(12)]
    path.write_text("\n".join(["image_a,image_b,same", *rows]))
    return path


def test_pairs_of_csv(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("image_a,image_b,same\nA_0001,A_0002,1\nA_0001,B_0001,0\n")
    assert read_pairs(path) == [Pair("A_0001", "A_0002", True), Pair("A_0001", "B_0001", False)]


def test_pairs_of_lfw(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("10\t300\nAbel_Pacheco\t1\t4\nAbdel_Madi_Shabneh\t1\tDean_Barker\t12\n")
    assert read_pairs(path) == [
        Pair("Abel_Pacheco_0001", "Abel_Pacheco_0004", True),
        Pair("Abdel_Madi_Shabneh_0001", "Dean_Barker_0012", False),
    ]


def test_line_that_is_no_pair_is_named(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("1\nA 1 2\nA one two\n")
    with pytest.raises(EvaluationError, match="Line 3"):
        read_pairs(path)


def test_zip_and_folder_are_the_same_pictures(people, tmp_path):
    path = tmp_path / "people.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for picture in people.rglob("*.png"):
            archive.write(picture, picture.relative_to(people))
    packed, plain = open_pictures(path), open_pictures(people)
    stems = sorted(plain.members)
    assert packed.people == plain.people
    assert list(packed.read(stems)) == list(plain.read(stems))


def test_threshold_lets_through_the_chosen_share_of_strangers():
    vectors = np.random.default_rng(1).normal(size=(300, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = threshold_of_impostors(
        impostor_scores(vectors, [str(n // 3) for n in range(300)]), 0.01
    )
    first, second = np.triu_indices(300, 1)
    scores = (vectors @ vectors.T)[first, second][first // 3 != second // 3]
    assert found.impostor_pairs == len(scores) == 300 * 299 // 2 - 300
    assert 0.008 < (scores >= found.similarity).mean() <= 0.01


def test_threshold_refuses_to_stand_on_too_few_pairs():
    with pytest.raises(EvaluationError, match="at least 10000 pairs"):
        threshold_of_impostors(np.zeros(190), 0.001)


def test_identification_counts_the_person_not_the_picture():
    vectors = np.eye(8, dtype=np.float32)[[0, 0, 1, 1, 2, 0]]
    found = identification(vectors, ["a", "a", "b", "b", "c", "c"])
    assert found.figures() == {
        "persons": 3, "probes": 3, "rank_1": pytest.approx(2 / 3), "rank_5": 1.0
    }  # fmt: skip


def test_command_measures_compares_and_draws(people, pairs, own_weights, tmp_path, capsys):
    other = tmp_path / "other.npz"
    stems = sorted(open_pictures(people).members)
    perfect = np.eye(16)[[int(stem.split("_")[1]) for stem in stems]]
    np.savez(other, names=stems, embedding=perfect)
    call_command(
        "evaluate", people, pairs=pairs, aligned=True, identify=True, compare=other,
        json=tmp_path / "figures.json", plot=tmp_path / "roc.png", no_progress=True,
    )  # fmt: skip
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["other"]["accuracy"] == 1
    assert figures[MODEL]["accuracy"] > 0.8
    assert figures[MODEL]["rank_1"] > 0.8
    assert (tmp_path / "roc.png").read_bytes().startswith(b"\x89PNG")
    assert "accuracy" in capsys.readouterr().out


def test_without_pairs_every_picture_is_verified_with_every_other(people, own_weights, tmp_path):
    other = tmp_path / "other.npz"
    stems = sorted(open_pictures(people).members)
    perfect = np.eye(16)[[int(stem.split("_")[1]) for stem in stems]]
    np.savez(other, names=stems, embedding=perfect)
    plot = tmp_path / "roc.png"
    call_command(
        "evaluate", people, aligned=True, compare=other, plot=plot, json=tmp_path / "figures.json",
        no_progress=True,
    )  # fmt: skip
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures[MODEL]["genuine_pairs"], figures[MODEL]["impostor_pairs"]) == (12, 264)
    assert figures[MODEL]["accuracy"] > 0.8 and figures[MODEL]["rank_1"] > 0.8
    assert figures["other"]["accuracy"] == 1
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_poor_copies_are_measured_and_written_as_markdown(people, own_weights, tmp_path, capsys):
    options = {name: tmp_path / f"figures.{name}" for name in ("json", "markdown")}
    call_command(
        "evaluate", people, aligned=True, conditions=True, fmr=0.05, plot=tmp_path / "bars.png",
        no_progress=True, **options,
    )  # fmt: skip
    figures = json.loads(options["json"].read_text())[MODEL]
    assert set(figures["conditions"]) == {"none", *CONDITIONS}
    assert figures["conditions"]["none"]["tar_one"] == figures["tar_at_threshold"]
    low, high = figures["intervals"]["tar_at_fmr_0.01"]
    assert low <= figures["tar_at_fmr_0.01"] <= high
    assert 0 <= figures["fnir_at_fpir_0.1"] <= 1
    written = options["markdown"].read_text()
    share = 100 * figures["tar_at_fmr_0.01"]
    assert f"| TAR at FMR 1 % | {share:.1f} % ({100 * low:.1f}–{100 * high:.1f}) |" in written
    assert "| TAR at FMR 5 % | `mobilenetv3_large`: both so |" in written
    assert "| eyes covered |" in written and "| eyes covered |" in capsys.readouterr().out
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_false_matches_by_group_at_the_stored_threshold(people, own_weights, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    names = sorted(open_pictures(people).members)
    rows = [f"{name},{'even' if int(name.split('_')[1]) % 2 == 0 else 'odd'}" for name in names]
    labels.write_text("\n".join(["file,kind", *rows]))
    options = {"groups": labels, "aligned": True, "no_progress": True}
    with pytest.raises(CommandError, match="have no thresholds"):
        call_command("evaluate", people, **options)
    with pytest.raises(CommandError, match="--sample is for --groups alone"):
        call_command("evaluate", people, sample=3)
    with pytest.raises(CommandError, match="leave out --identify, --save"):
        call_command("evaluate", people, identify=True, save=True, **options)

    call_command("evaluate", people, aligned=True, fmr=0.04, save=True, no_progress=True)
    written = tmp_path / "groups.md"
    call_command("evaluate", people, markdown=written, json=tmp_path / "groups.json", **options)
    rates = json.loads((tmp_path / "groups.json").read_text())[MODEL]
    assert [(rate["value"], rate["pairs"]) for rate in rates] == [
        ("", 276),
        ("even", 66),
        ("odd", 66),
    ]
    # The twelve genuine pairs count as well: nothing says who is who here.
    assert rates[0]["false_matches"] >= 12
    assert "| kind: odd | 12 | 66 |" in written.read_text()
    assert written.read_text() in capsys.readouterr().out

    call_command("evaluate", people, sample=10, json=tmp_path / "groups.json", **options)
    rates = json.loads((tmp_path / "groups.json").read_text())[MODEL]
    assert rates[0]["pictures"] == 10


def test_stored_threshold_is_judged_by_other_pictures(people, own_weights, tmp_path):
    figures = tmp_path / "figures.json"
    call_command("evaluate", people, aligned=True, no_progress=True, json=figures)
    assert "fmr_at_match" not in json.loads(figures.read_text())[MODEL]
    call_command("evaluate", people, aligned=True, fmr=0.04, save=True, no_progress=True)
    call_command("evaluate", people, aligned=True, no_progress=True, json=figures)
    found = json.loads(figures.read_text())[MODEL]
    assert 0 < found["fmr_at_match"] <= 0.04
    assert found["tar_at_match"] > 0.5 and 0 <= found["fpir_at_match"] < 1
    assert found["fpir_at_match"] <= found["fpir_at_review"] <= 1
    assert 0 <= found["fnir_at_review"] <= found["fnir_at_match"]


def test_the_command_is_stored_without_the_folders_of_this_machine(
    people, own_weights, monkeypatch
):
    words = ["manage.py", "evaluate", "/home/me/lfw.zip/val", "--pairs", "/home/me/pairs.csv"]
    monkeypatch.setattr("sys.argv", words)
    call_command("evaluate", people, aligned=True, fmr=0.04, save=True, no_progress=True)
    command = read_descriptor(find_weights(MODEL)).measured["command"]
    assert command == "manage.py evaluate lfw.zip/val --pairs pairs.csv"


def test_too_few_pairs_are_told_and_people_are_identified(people, pairs, own_weights, capsys):
    for number in range(9):
        shutil.rmtree(people / f"Person_{number}")
    call_command("evaluate", people, aligned=True, no_progress=True)
    told = capsys.readouterr()
    assert "too few pairs to verify" in told.err
    assert "rank_1" in told.out and "accuracy" not in told.out

    pairs.write_text(
        "\n".join(pairs.read_text().splitlines()[:1] + ["Person_9_0001,Person_9_0002,1"])
    )
    with pytest.raises(CommandError, match="1 pairs of one person and 0 of different people"):
        call_command("evaluate", people, pairs=pairs, aligned=True, no_progress=True)


def test_persons_may_call_their_pictures_alike(people, pairs, own_weights):
    for folder in people.iterdir():
        for number, picture in enumerate(sorted(folder.iterdir()), 1):
            picture.rename(folder / f"{number}.png")
    assert open_pictures(people).people["Person_3/2"] == "Person_3"
    pairs.write_text(re.sub(r"(Person_\d+)_000", r"\1/", pairs.read_text()))
    call_command("evaluate", people, pairs=pairs, aligned=True, identify=True, no_progress=True)

    shutil.copy(people / "Person_3" / "2.png", people / "Person_3" / "2.jpg")
    with pytest.raises(EvaluationError, match="Two pictures are called Person_3/2"):
        open_pictures(people)


def test_saved_thresholds_belong_to_these_weights_alone(people, own_weights):
    call_command("evaluate", people, aligned=True, fmr=0.04, save=True, no_progress=True)
    saved = read_descriptor(find_weights(MODEL))
    assert saved.match.fmr == 0.04
    assert saved.review.similarity <= saved.match.similarity
    assert [point.fmr for point in saved.curve] == [0.1]
    assert read_descriptor(find_weights(MODEL)) is saved  # read once, not by every search
    assert saved.measured["rank_1"] > 0.8
    (own_weights / f"{MODEL}.safetensors").write_bytes(b"other weights")
    assert read_descriptor(find_weights(MODEL)) is None


def test_weights_replaced_meanwhile_get_no_thresholds_of_the_former(
    people, own_weights, monkeypatch
):
    def replaced_meanwhile(*measured):
        (own_weights / f"{MODEL}.safetensors").write_bytes(b"other weights")
        return propose_thresholds(*measured)

    monkeypatch.setattr(evaluate, "propose_thresholds", replaced_meanwhile)
    with pytest.raises(CommandError, match="replaced while it was measured"):
        call_command("evaluate", people, aligned=True, fmr=0.04, save=True, no_progress=True)
    assert read_descriptor(find_weights(MODEL)) is None


def test_vectors_of_two_weights_are_not_measured_together(people, own_weights, monkeypatch):
    embed, made_by = embedding.embeddings_of, iter("abc")
    monkeypatch.setattr(embedding, "CHUNK", 5)
    monkeypatch.setattr(
        embedding,
        "embeddings_of",
        lambda *given: replace(embed(*given), fingerprint=next(made_by)),
    )
    with pytest.raises(CommandError, match="replaced while it was measured"):
        call_command("evaluate", people, aligned=True, no_progress=True)


def test_thresholds_speak_only_for_the_way_they_were_measured(people, own_weights, settings):
    def stored():
        return thresholds_of(MODEL, find_weights(MODEL).fingerprint)

    call_command("evaluate", people, aligned=True, fmr=0.04, save=True, no_progress=True)
    assert stored()

    settings.RECOGNITION = settings.RECOGNITION | {"FLIP_TTA": True}
    assert stored() is None
    assert read_descriptor(find_weights(MODEL)).measured == {}
    call_command("evaluate", people, aligned=True, fmr=0.04, save=True, no_progress=True)
    assert stored()

    settings.RECOGNITION = settings.RECOGNITION | {"FLIP_TTA": False}
    assert stored() is None


@pytest.mark.parametrize("words", [["evaluate", "x", "--json"], ["benchmark", "--plot"]])
def test_file_that_cannot_be_written_is_told_before_the_work(words, tmp_path):
    """It was told after minutes of measuring, which were lost."""
    for path, reason in ((tmp_path / "absent" / "x", "No such file"), (tmp_path, "directory")):
        with pytest.raises(CommandError, match=f"cannot be written: .*{reason}"):
            call_command(*words, str(path))


def test_picture_that_pairs_name_and_nobody_has(people, pairs, own_weights):
    (people / "Person_3" / "Person_3_0002.png").unlink()
    with pytest.raises(CommandError, match="1 picture of the pairs.*Person_3_0002"):
        call_command("evaluate", people, pairs=pairs, aligned=True, no_progress=True)


def test_picture_that_cannot_be_used_is_named_and_left_out(people, own_weights, capsys):
    (people / "Person_3" / "notes.jpg").write_bytes(b"no picture")
    call_command("evaluate", people, aligned=True, no_progress=True)
    told = capsys.readouterr()
    assert "24 pictures, 24 taken whole (no face found or looked for), 1 left out" in told.out
    assert "Person_3/notes.jpg: left out." in told.err


def test_picture_of_the_pairs_that_cannot_be_used(people, pairs, own_weights):
    (people / "Person_3" / "Person_3_0001.png").write_bytes(b"no picture")
    with pytest.raises(CommandError, match="of the pairs cannot be used: Person_3_0001"):
        call_command("evaluate", people, pairs=pairs, aligned=True, no_progress=True)


def test_folder_without_a_usable_picture(tmp_path, own_weights):
    (tmp_path / "notes.jpg").write_bytes(b"no picture")
    with pytest.raises(CommandError, match="notes.jpg: "):
        call_command("evaluate", tmp_path, aligned=True, no_progress=True)


def test_verify_weights_tells_good_from_bad(own_weights, capsys):
    call_command("verify_weights", MODEL)
    assert "yes, 512 numbers" in capsys.readouterr().out
    (own_weights / f"{MODEL}.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(CommandError, match="1 weights file does not load"):
        call_command("verify_weights", MODEL)
    output = capsys.readouterr().out
    assert output.index(f"{MODEL}.ckpt") < output.index(f"{MODEL}.safetensors")
