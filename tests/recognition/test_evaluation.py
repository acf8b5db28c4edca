"""The calculations of an evaluation: intervals, identification, conditions and groups."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from recognition.evaluation import (
    EvaluationError,
    group_rates,
    identification,
    measure_conditions,
    open_pictures,
    read_labels,
    verify_all,
)
from recognition.evaluation.conditions import CONDITIONS
from recognition.evaluation.intervals import tar_intervals
from recognition.evaluation.verification import verify_between
from recognition.metrics import threshold_at_fmr


def vectors_of(people: int, pictures: int, noise: float, seed: int = 0):
    """Return vectors scattered around one direction for each person, and their persons."""
    chance = np.random.default_rng(seed)
    centres = np.repeat(chance.normal(size=(people, 64)), pictures, axis=0)
    vectors = (centres + noise * chance.normal(size=centres.shape)).astype(np.float32)
    names = np.repeat([f"p{n}" for n in range(people)], pictures).tolist()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), names


def test_all_pairs_carry_whom_they_show():
    vectors, names = vectors_of(5, 3, 0.5)
    found = verify_all(vectors, names)
    first, second = np.triu_indices(15, 1)
    assert np.allclose(found.similarities, (vectors @ vectors.T)[first, second], atol=1e-6)
    assert found.people.tolist() == np.stack([first // 3, second // 3], 1).tolist()
    assert found.same.tolist() == (first // 3 == second // 3).tolist()


def test_the_threshold_of_a_rate_keeps_that_rate():
    """Rounded to float32, the threshold would equal the score just below it."""
    found = verify_all(*vectors_of(12, 3, 0.8))
    for rate in (0.3, 0.1, 0.05, 0.02):
        threshold = threshold_at_fmr(found.similarities, found.same, rate)
        assert found.at(threshold)[0] <= rate


def test_a_picture_is_compared_with_every_other_in_another_state():
    plain, names = vectors_of(4, 2, 0.5)
    poor, _names = vectors_of(4, 2, 0.9)
    found = verify_between(poor, plain, names)
    assert len(found.similarities) == 8 * 7
    assert found.similarities[0] == pytest.approx(float(poor[0] @ plain[1]), abs=1e-6)
    assert found.same.sum() == 8


def test_interval_covers_the_rate_and_narrows_with_more_people():
    few, many = (verify_all(*vectors_of(count, 4, 1.3)) for count in (12, 120))
    for found in (few, many):
        low, high = found.intervals()["tar_at_fmr_0.01"]
        assert low < found.figures(0.01)["tar_at_fmr_0.01"] < high
    width = [np.ptp(found.intervals()["tar_at_fmr_0.01"]) for found in (few, many)]
    assert width[1] < width[0] / 2


def test_interval_is_that_of_pairs_counted_one_by_one():
    """Compare the optimised sums with the plain definition, replicate by replicate."""
    found = verify_all(*vectors_of(9, 3, 1.5))
    chance, rates = np.random.default_rng(0), []
    for _replicate in range(50):
        drawn = np.bincount(chance.integers(9, size=9), minlength=9)
        count = np.where(found.same, drawn[found.people[:, 0]], drawn[found.people].prod(1))
        scores = np.repeat(found.similarities, count)
        same = np.repeat(found.same, count)
        impostors = np.sort(scores[~same])[::-1]
        threshold = impostors[int(0.05 * len(impostors))]
        rates.append((scores[same] > threshold).mean())
    expected = np.percentile(rates, (2.5, 97.5))
    interval = tar_intervals(found.similarities, found.same, found.people, [0.05], replicates=50)
    assert interval[0.05] == pytest.approx(tuple(expected), abs=1e-6)


def test_interval_knows_that_a_persons_pictures_go_together():
    """Copies of pictures are no additional evidence."""
    vectors, names = vectors_of(20, 3, 1.3)
    once = verify_all(vectors, names).intervals()["tar_at_fmr_0.01"]
    copied = verify_all(np.repeat(vectors, 3, axis=0), np.repeat(names, 3).tolist())
    assert np.ptp(copied.intervals()["tar_at_fmr_0.01"]) > 0.6 * np.ptp(once)


def test_strangers_are_searched_in_a_gallery_without_them():
    gallery = np.eye(4, dtype=np.float32)
    probes = np.array([[0.9, 0.4, 0.1, 0.1], [0.3, 0.8, 0.5, 0.1], [0.6, 0.1, 0.5, 0.1]], "f4")
    found = identification(np.concatenate([gallery, probes]), ["a", "b", "c", "d", "a", "b", "c"])
    assert found.own.tolist() == pytest.approx([0.9, 0.8, 0.5])
    assert found.other.tolist() == pytest.approx([0.4, 0.5, 0.6])
    # At 0.45 the strangers b and c are taken for others; c is enrolled, but a comes first.
    assert found.at(0.45) == pytest.approx((2 / 3, 1 / 3))
    assert found.at(0.85) == pytest.approx((0, 2 / 3))


def test_fnir_is_read_where_strangers_come_through_seldom_enough():
    vectors, names = vectors_of(40, 6, 1.2)
    found = identification(vectors, names)
    figures, intervals = found.figures(), found.intervals()
    assert figures["persons"] == 40 and figures["probes"] == 200
    threshold = np.sort(found.other)[::-1][2]  # two of 200 are above it
    assert figures["fnir_at_fpir_0.01"] == pytest.approx(found.at(np.nextafter(threshold, 2))[1])
    low, high = intervals["fnir_at_fpir_0.1"]
    assert low <= figures["fnir_at_fpir_0.1"] <= high < 1


def test_nobody_to_identify_is_said():
    vectors, names = vectors_of(1, 3, 0.1)
    with pytest.raises(EvaluationError, match="two people or more"):
        identification(vectors, names)


@pytest.fixture
def crop():
    """A crop of random patches that every condition changes."""
    small = np.random.default_rng(3).integers(0, 256, (14, 14, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((112, 112), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("name", CONDITIONS)
def test_condition_changes_a_crop_and_stays_one(crop, name):
    before = crop.copy()
    changed = CONDITIONS[name](crop)
    assert changed.shape == (112, 112, 3) and changed.dtype == np.uint8
    assert (changed != before).any() and (crop == before).all()


def test_conditions_do_what_they_say(crop):
    grey = CONDITIONS["grey"](crop)
    assert (grey == grey[..., :1]).all()
    assert CONDITIONS["dark"](crop).mean() == pytest.approx(crop.mean() / 4, rel=0.05)
    eyes, mouth = CONDITIONS["eyes covered"](crop), CONDITIONS["mouth covered"](crop)
    for covered, inside, outside in ((eyes, (52, 38), (92, 56)), (mouth, (92, 56), (52, 38))):
        assert (covered[inside] == 128).all() and (covered[outside] == crop[outside]).all()


def test_conditions_are_measured_against_the_crops_as_they_came():
    people, pictures = 12, 3
    chance = np.random.default_rng(0)
    base = np.repeat(chance.integers(0, 200, (people, 8, 8, 3)), pictures, axis=0)
    small = (base + chance.integers(0, 56, base.shape)).astype(np.uint8)
    crops = np.stack([np.asarray(Image.fromarray(item).resize((112, 112), 0)) for item in small])

    def embed(images):
        rows = np.stack([np.asarray(i)[::14, ::14].reshape(-1) for i in images]).astype(np.float32)
        rows -= 127
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    names = np.repeat(np.arange(people), pictures).astype(str).tolist()
    found = measure_conditions(crops, embed(crops), names, embed, 0.01)
    assert set(found) == {"none", *CONDITIONS}
    assert found["none"].tar_one == 1
    assert found["dark"].tar_kept < 0.5  # this embedding takes a dark picture for another
    assert found["JPEG 20"].tar_one > 0.9


def test_false_matches_are_counted_within_groups():
    # Two groups of four: in the first two pairs are alike, in the second none, across one.
    vectors = np.eye(8, dtype=np.float32)
    vectors[1], vectors[3], vectors[4] = vectors[0], vectors[2], vectors[0]
    labels = {"age": ["3-9"] * 4 + ["10-19"] * 4, "gender": list("mfmfmfmf")}
    rates = {(r.column, r.value): r for r in group_rates(vectors, labels, 0.9)}
    assert [key for key in rates if key[0] == "age"] == [("age", "3-9"), ("age", "10-19")]
    young, older = rates["age", "3-9"], rates["age", "10-19"]
    assert (young.pictures, young.pairs, young.false_matches) == (4, 6, 2)
    assert (older.pairs, older.false_matches) == (6, 0)
    assert (rates["all", ""].pairs, rates["all", ""].false_matches) == (28, 4)
    assert young.interval[0] < young.fmr < young.interval[1]
    alike = rates["alike in all labels", ""]
    assert (alike.pairs, alike.false_matches) == (4, 0)


def test_pair_just_below_the_threshold_is_no_false_match():
    """The threshold was rounded to the vectors' float32, where it was their very similarity."""
    similarity = np.float32(0.7)
    vectors = np.array([[1, 0], [similarity, np.sqrt(1 - similarity**2)]], np.float32)
    for threshold, matches in ((float(similarity), 1), (np.nextafter(float(similarity), 1), 0)):
        (everybody, *_others) = group_rates(vectors, {"age": ["20-29"] * 2}, float(threshold))
        assert everybody.false_matches == matches


def test_labels_are_read_by_picture(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("file,age,race\nb,03-Sep,White\na,20-29,Black\n")
    assert read_labels(path, ["a", "b"]) == {"age": ["20-29", "3-9"], "race": ["Black", "White"]}
    with pytest.raises(EvaluationError, match="no row for 1 of the pictures, the first is c"):
        read_labels(path, ["a", "c"])
    path.write_text("file\na\n")
    with pytest.raises(EvaluationError, match="at least one column of labels"):
        read_labels(path, ["a"])


def test_folders_inside_archives_and_several_sources(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    for name in ("one.zip", "two.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("train/ana/1.png", file.getvalue())
            archive.writestr(f"val/bia-{name}/2.png", file.getvalue())
            archive.writestr(f"val/{name}.png", file.getvalue())
    found = open_pictures(tmp_path / "one.zip" / "val", tmp_path / "two.zip" / "val")
    assert found.people == {
        "bia-one.zip/2": "bia-one.zip", "one.zip": "", "bia-two.zip/2": "bia-two.zip", "two.zip": ""
    }  # fmt: skip
    assert [name for name, _content in found.read(["two.zip", "bia-one.zip/2"])] == [
        "two.zip.png",
        "2.png",
    ]
    with pytest.raises(EvaluationError, match="no picture in"):
        open_pictures(tmp_path / "one.zip" / "test")
