from __future__ import annotations

import numpy as np
import pytest
from django.db import IntegrityError

from enrollment.models import FaceEmbedding, FaceImage, Person, picture_path


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
