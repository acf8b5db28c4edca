from __future__ import annotations

import numpy as np
import pytest
from django.core.cache import cache
from django.db import connection

from enrollment.gallery.selectors import (
    gallery_is_empty,
    search_gallery,
    search_thresholds,
)
from enrollment.gallery.weights import Weights, gallery_size, thresholds_in_force
from enrollment.models import FaceEmbedding, Person, Removal
from recognition.decision import decide
from recognition.embedding import Embeddings
from recognition.vector_store import VectorRow, get_vector_store, partition_name
from tests.enrollment.gallery import MODEL, enroll
from tests.pictures import draw_picture

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]


def probe_of(row: FaceEmbedding) -> Embeddings:
    return Embeddings(row.array[None], row.model, row.fingerprint)


@pytest.fixture
def row(picture) -> FaceEmbedding:
    return enroll("ana", picture).outcomes[0].embeddings[0]


def add_ghosts(row: FaceEmbedding, ids: range) -> None:
    """Add vectors to Milvus that are nearer than the row's and have no embedding in SQL."""
    vectors = [VectorRow(pk, row.array, "ghost", "", "") for pk in ids]
    get_vector_store().upsert(partition_name(row.model, row.fingerprint), vectors)


def test_ghosts_are_never_found_and_displace_nobody(row):
    add_ghosts(row, range(10_000, 10_040))
    for limit in (1, 5):
        (hits,) = search_gallery(probe_of(row), limit)
        assert [(hit.id, hit.person.person_id) for hit in hits] == [(row.pk, "ana")]
        assert hits[0].similarity == pytest.approx(1, abs=1e-5)


def test_vector_under_the_id_of_another_models_row_is_a_ghost(row):
    """Two databases on one Milvus, or a restored backup: the id is of another row."""
    other = FaceEmbedding.objects.create(
        face_image=row.face_image, model="cosface_resnet50", fingerprint="f"
    )
    add_ghosts(row, range(other.pk, other.pk + 1))
    (hits,) = search_gallery(probe_of(row), 5)
    assert [hit.id for hit in hits] == [row.pk]


def test_deleted_person_is_not_found_before_milvus_forgot(row):
    probe = probe_of(row)
    Person.objects.all().delete()
    assert Removal.objects.exists()
    assert search_gallery(probe, 5) == [[]]


def test_hits_come_best_first_with_their_cosine(row, draw_picture):
    enroll("bia", *(draw_picture(seed=n) for n in range(1, 6)))
    (hits,) = search_gallery(probe_of(row), 4)
    assert len(hits) == 4 and hits[0].id == row.pk
    rows = FaceEmbedding.objects.in_bulk()
    cosines = [float(row.array @ rows[hit.id].array) for hit in hits]
    np.testing.assert_allclose([hit.similarity for hit in hits], cosines, atol=1e-4)
    assert cosines == sorted(cosines, reverse=True)


def test_other_weights_find_nothing_of_ours(row):
    assert search_gallery(Embeddings(row.array[None], MODEL, "0" * 16), 5) == [[]]


def test_hits_cost_one_query_beside_those_of_the_thresholds_however_many(
    row, draw_picture, django_assert_num_queries
):
    enroll("bia", *(draw_picture(seed=n) for n in range(1, 6)))
    with django_assert_num_queries(3):
        (hits,) = search_gallery(probe_of(row), 6)
        assert {hit.person.person_id for hit in hits} == {"ana", "bia"}
    with django_assert_num_queries(0):  # what a page or an answer shows of a hit is there
        for hit in hits:
            picture = hit.face_image
            assert str(hit.person) and picture.get_absolute_url() == f"/pictures/{picture.pk}"
            assert picture.get_source_display() and picture.created_at and picture.original_path


def test_gallery_is_empty_until_somebody_has_a_picture(picture):
    Person.objects.create(person_id="ana")
    assert gallery_is_empty()
    enroll("ana", picture)
    assert not gallery_is_empty()


def test_a_search_is_decided_by_thresholds_that_rise_with_the_gallery(
    row, draw_picture, monkeypatch
):
    monkeypatch.setattr("recognition.decision.PICTURES_WITHOUT_RISE", 1)
    weights = Weights(row.model, row.fingerprint)
    pair = thresholds_in_force(weights)
    enroll("bia", *(draw_picture(seed=n) for n in range(1, 4)))
    (hits,) = search_gallery(probe_of(row), 4)
    assert search_thresholds(weights) == pair.for_search(4) != pair
    for hit in hits:
        assert hit.decision is decide(hit.similarity, pair.for_search(4))


def test_all_faces_of_a_request_are_searched_for_at_once(
    row, monkeypatch, django_assert_num_queries
):
    others = [enroll(name, draw_picture(seed=n)).outcomes[0] for n, name in enumerate("bcd", 1)]
    vectors = np.stack([row.array, *(each.embeddings[0].array for each in others)])
    store, asked = get_vector_store(), []
    search = store.search
    monkeypatch.setattr(
        store,
        "search",
        lambda name, some, limit: asked.append(len(some)) or search(name, some, limit),
    )
    thresholds = search_thresholds(Weights(row.model, row.fingerprint))
    with django_assert_num_queries(1):
        found = search_gallery(
            Embeddings(vectors, MODEL, row.fingerprint), 1, thresholds=thresholds
        )
    assert [hits[0].person.person_id for hits in found] == ["ana", "b", "c", "d"]
    assert asked == [4]


def test_large_gallery_is_counted_once_a_minute(row, monkeypatch, django_assert_num_queries):
    weights_of_row = Weights(row.model, row.fingerprint)
    assert gallery_size(weights_of_row) == 1
    enroll("bia", draw_picture(seed=1))
    assert gallery_size(weights_of_row) == 2
    monkeypatch.setattr("enrollment.gallery.weights.COUNTED_EACH_TIME", 1)
    with django_assert_num_queries(1):
        assert [gallery_size(weights_of_row) for _again in range(3)] == [2, 2, 2]
    cache.clear()


def test_counting_reads_no_vectors(row):
    plan = Weights(row.model, row.fingerprint).rows.order_by().values("pk").explain()
    if connection.vendor == "sqlite":
        assert "embedding_computed" in plan


def test_embeddings_of_a_person_are_found_without_reading_all(row):
    rows = Weights(row.model, row.fingerprint).rows
    asked = (
        rows.filter(face_image__in=[1, 2, 3, 4]),
        rows.filter(face_image__person=1),
        rows.filter(face_image__person__in=[1, 2]),
        rows.filter(pk__in=[1, 2, 3, 4]),
    )
    for found in asked:
        plan = found.explain()
        if connection.vendor == "sqlite":
            assert "(model=?" not in plan, plan
