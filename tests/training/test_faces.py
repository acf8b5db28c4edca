"""Crops are read alike from folders and archives, with their people and teacher vectors."""

import shutil

import numpy as np
import pytest
from PIL import Image

from training.faces import NOBODY, read_faces, read_teacher, split_people


def test_the_folder_names_the_person(crops):
    faces = read_faces([crops])
    assert faces.images.shape == (24, 112, 112, 3)
    assert faces.images.dtype == np.uint8
    assert faces.names_of_people == [f"person_{n}" for n in range(6)]
    assert [faces.names[i] for i in np.flatnonzero(faces.people == 2)] == [
        f"p2_{n}" for n in range(4)
    ]


def test_an_archive_reads_like_its_folder(crops, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "crops")
    inside, folder = read_faces([f"{archive}/crops"]), read_faces([crops])
    assert inside.names_of_people == folder.names_of_people
    assert np.array_equal(inside.images, folder.images)
    assert read_faces([archive]).names_of_people[0] == "crops/person_0"


def test_crops_outside_a_folder_belong_to_nobody(crops, tmp_path):
    Image.new("L", (60, 60), 90).save(tmp_path / "crops" / "alone.jpg")
    faces = read_faces([crops])
    assert faces.people[faces.names == "alone"] == NOBODY
    assert (faces.images[faces.names == "alone"] == 90).all()


def test_a_source_without_pictures_is_named(tmp_path):
    with pytest.raises(SystemExit, match="holds no pictures"):
        read_faces([tmp_path])


def test_held_out_people_are_in_one_part_only(crops):
    train, held = split_people(read_faces([crops]), share=0.34, seed=3)
    assert len(held.names_of_people) == 2
    assert len(train) + len(held) == 24
    assert not set(train.names_of_people) & set(held.names_of_people)
    assert set(np.unique(train.people)) == set(range(4))


def test_teacher_vectors_follow_the_names(teacher):
    whole = read_teacher([teacher], [f"p{p}_{n}" for p in range(6) for n in range(4)])
    assert whole.dtype == np.float32
    assert np.array_equal(read_teacher([teacher], ["p3_1", "p0_0"]), whole[[13, 0]])


def test_a_crop_without_teacher_vector_is_an_error(teacher):
    with pytest.raises(SystemExit, match="no vector for 1 of 2 crops, stranger"):
        read_teacher([teacher], ["p0_0", "stranger"])
