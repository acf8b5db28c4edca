from __future__ import annotations

import numpy as np
import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError

from enrollment.models import FaceEmbedding, FaceImage, Person, picture_path


@pytest.mark.parametrize(
    ("person_id", "code"),
    [
        ("", "blank"),
        ("  ", "blank"),
        ("a\0b", "null_characters_not_allowed"),
        ("x" * 201, "max_length"),
    ],
)
def test_person_id_that_cannot_be_one_is_refused(person_id, code):
    with pytest.raises(ValidationError) as refused:
        Person(person_id=person_id).clean_fields()
    assert [error.code for error in refused.value.error_dict["person_id"]] == [code]


@pytest.mark.parametrize("person_id", ["o'hara", '100% "x"', "x" * 200, "李雷", "123.456.789-00"])
def test_any_other_text_is_a_person_id(person_id, db):
    Person(person_id=person_id).full_clean()


@pytest.mark.parametrize(
    ("name", "extension"),
    [("../../etc/passwd.JPG", "jpg"), ("a.jpeg", "jpg"), ("x.tiff", "png"), ("", "png")],
)
def test_stored_file_name_is_ours(name, extension):
    path = picture_path(FaceImage(), name)
    assert path.startswith("pictures/") and path.endswith(f".{extension}")
    assert "passwd" not in path and ".." not in path
    assert path != picture_path(FaceImage(), name)


def test_vector_survives_the_database_bit_by_bit(db):
    picture = FaceImage(person=Person.objects.create(person_id="ana"), image="pictures/x.png")
    FaceImage.objects.bulk_create([picture])
    vector = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    row = FaceEmbedding(face_image=picture, model="m", fingerprint="f")
    assert row.array is None
    row.array = vector
    row.save()
    again = FaceEmbedding.objects.get(pk=row.pk).array
    assert again.dtype == np.float32 and np.array_equal(again, vector)


def test_a_picture_has_one_embedding_for_each_weights_file(db):
    picture = FaceImage(person=Person.objects.create(person_id="ana"), image="pictures/x.png")
    FaceImage.objects.bulk_create([picture])
    FaceEmbedding.objects.create(face_image=picture, model="m", fingerprint="f")
    FaceEmbedding.objects.create(face_image=picture, model="m", fingerprint="g")
    with pytest.raises(IntegrityError):
        FaceEmbedding.objects.create(face_image=picture, model="m", fingerprint="f")


def test_migrations_are_complete(db):
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
