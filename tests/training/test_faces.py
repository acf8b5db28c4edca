"""Crops are read alike from folders and archives, with their people and teacher vectors."""

import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from training.faces import (
    NOBODY,
    decode,
    open_pack,
    people_with_several,
    read_crops,
    read_teacher,
)
from training.pack import decode_sources


def test_the_folder_names_the_person(crops):
    first = next(read_crops(crops))
    assert (first.name, first.folder, first.suffix) == ("p0_0", "person_0", ".png")
    assert len(list(read_crops(crops))) == 24


def test_an_archive_reads_like_its_folder(crops, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "crops")
    assert list(read_crops(f"{archive}/crops")) == list(read_crops(crops))
    assert next(read_crops(archive)).folder == "crops/person_0"


def test_a_source_without_pictures_is_named(tmp_path):
    with pytest.raises(SystemExit, match="holds no pictures"):
        next(read_crops(tmp_path))


def test_decoding_gives_rgb_of_the_networks_size(crops):
    content = (crops / "person_1" / "p1_0.png").read_bytes()
    assert np.array_equal(decode(content), np.asarray(Image.open(crops / "person_1" / "p1_0.png")))
    small = cv2.imencode(".png", np.full((60, 60, 3), 90, np.uint8))[1].tobytes()
    assert decode(small).shape == (112, 112, 3)
    with pytest.raises(SystemExit, match="could not be read"):
        decode(b"no picture")


def test_a_pack_holds_pictures_and_people(crops, tmp_path):
    Image.new("L", (112, 112), 90).save(crops / "alone.png")
    decode_sources([crops], tmp_path / "pack")
    faces = open_pack(tmp_path / "pack")
    assert faces.images.shape == (25, 112, 112, 3)
    assert len(faces.names_of_people) == 6
    assert faces.people[faces.names == "alone"].tolist() == [NOBODY]
    assert (faces.images[faces.names == "alone"] == 90).all()
    assert faces.names[faces.people == 2].tolist() == [f"p2_{n}" for n in range(4)]


def test_a_folder_that_is_no_pack_says_how_to_make_one(tmp_path):
    with pytest.raises(SystemExit, match=r"python -m training.pack decode"):
        open_pack(tmp_path)


def test_people_are_held_out_whole():
    people = np.array([0, 0, 1, 1, 2, 2, 3, NOBODY])
    held = people_with_several(people, 0.67, seed=3)
    assert held.sum() == 4 and not held[6:].any()
    assert set(people[held]).isdisjoint(people[~held])
    assert not people_with_several(people, 0, seed=3).any()


def test_teacher_vectors_follow_the_names_and_have_length_1(teacher):
    whole = read_teacher([teacher], [f"p{p}_{n}" for p in range(6) for n in range(4)])
    assert whole.dtype == np.float32
    assert np.allclose(np.linalg.norm(whole, axis=1), 1)
    assert np.array_equal(read_teacher([teacher], ["p3_1", "p0_0"]), whole[[13, 0]])


def test_a_crop_without_teacher_vector_is_an_error(teacher):
    with pytest.raises(SystemExit, match="no vector for 1 of 2 crops, stranger"):
        read_teacher([teacher], ["p0_0", "stranger"])
