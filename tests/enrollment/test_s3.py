"""Pictures in a bucket, through django-storages with a local S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import reverse

from enrollment.index import indexing
from enrollment.models import FaceEmbedding, FaceImage
from tests.enrollment.gallery import enroll, found, stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]

BUCKET = "faces"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The address of an S3 server in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(settings, s3_server: str) -> Iterator[Any]:
    """An empty bucket that pictures are stored in."""
    import boto3

    access = {"access_key": "key", "secret_key": "secret", "region_name": "us-east-1"}
    options = {"bucket_name": BUCKET, "endpoint_url": s3_server, "file_overwrite": False} | access
    backend = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
    settings.STORAGES = settings.STORAGES | {"default": backend}
    bucket = boto3.resource(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    ).create_bucket(Bucket=BUCKET)
    yield bucket
    bucket.objects.delete()
    bucket.delete()


def names(bucket: Any) -> list[str]:
    return [item.key for item in bucket.objects.all()]


def test_picture_is_stored_found_and_shown(bucket, admin_client, picture):
    face_image = enroll("ana", picture).outcomes[0].face_image
    assert names(bucket) == [face_image.image.name]
    assert found(picture) == ["ana"]
    shown = admin_client.get(reverse("picture", args=[face_image.pk]))
    assert shown["Content-Type"] == "image/jpeg"
    assert shown.content == bucket.Object(face_image.image.name).get()["Body"].read()


def test_picture_is_embedded_again_from_the_bucket(bucket, picture):
    enroll("ana", picture)
    before = FaceEmbedding.objects.get()
    FaceEmbedding.objects.update(vector=None, status="pending")
    assert indexing.index_rows([before.pk]).indexed == 1
    assert FaceEmbedding.objects.get().vector == before.vector


def test_deleted_picture_leaves_the_bucket(bucket, picture, django_capture_on_commit_callbacks):
    person = enroll("ana", picture).person
    with django_capture_on_commit_callbacks(execute=True):
        person.delete()
    assert names(bucket) == [] and stored() == []


def test_lost_object_is_named_in_the_row(bucket, picture):
    face_image = enroll("ana", picture).outcomes[0].face_image
    bucket.Object(face_image.image.name).delete()
    FaceEmbedding.objects.update(vector=None)
    assert indexing.index_rows([FaceEmbedding.objects.get().pk]).failed == 1
    assert FaceEmbedding.objects.get().error == "picture_missing"


def test_missing_bucket_refuses_the_picture(bucket, picture):
    from enrollment.exceptions import StorageUnavailable

    bucket.delete()
    try:
        with pytest.raises(StorageUnavailable):
            enroll("ana", picture)
    finally:
        bucket.create()
    assert not FaceImage.objects.exists()
