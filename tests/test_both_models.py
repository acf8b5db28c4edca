"""A fresh clone has both models, each with its own weights, thresholds and vectors."""

from __future__ import annotations

import numpy as np
import pytest
from django.core.checks import run_checks
from django.test import Client

from enrollment.models import FaceEmbedding
from recognition.embedding import embed_crops
from recognition.networks import NETWORKS, find_weights
from recognition.networks.descriptor import read_descriptor
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.pictures import upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("both_models")]
every_model = pytest.mark.parametrize("model", NETWORKS)


def shot(person: int, number: int = 0):
    """A picture of a drawn person, to send in a form."""
    return upload(as_jpeg(draw_face(person, number)))


@pytest.fixture
def gallery(api) -> None:
    """Three drawn persons with a picture each."""
    for person in PEOPLE:
        form = {"images": [shot(person)], "person_id": str(person)}
        response = api.post("/api/milvus/insert", form)
        assert response.status_code == 200, response.json()


def test_nothing_is_missing():
    assert "recognition.I001" not in {message.id for message in run_checks()}


@every_model
def test_the_weights_come_with_what_was_measured(model):
    weights = find_weights(model)
    descriptor = read_descriptor(weights)
    assert descriptor and descriptor.match and descriptor.review
    assert 0.92 <= descriptor.measured["accuracy"] < 1
    assert descriptor.match.similarity > descriptor.review.similarity > 0
    assert descriptor.source and descriptor.trained_on and descriptor.licence
    assert weights.path.stat().st_size < {"mobilenetv3_large": 8e6, "cosface_resnet50": 50e6}[model]


def test_an_enrolled_face_has_an_embedding_of_each(gallery):
    rows = FaceEmbedding.objects.values_list("model", "status")
    expected = [(model, "indexed") for model in NETWORKS for _ in PEOPLE]
    assert sorted(rows) == sorted(expected)


@every_model
def test_the_api_finds_whom_it_knows(api, gallery, model):
    for person in PEOPLE:
        form = {"image": shot(person, 1), "model": model, "top_k": 1}
        body = api.post("/api/milvus/search", form).json()
        assert body["model"] == model and body["thresholds"]["match"] > 0
        assert [hit["person_id"] for hit in body["results"]] == [str(person)]


@every_model
def test_the_page_answers(gallery, model):
    page = Client(headers={"host": "localhost"})
    form = {"model": model, "top_k": 1, "group_by_person": "on", "images": [shot(PEOPLE[0], 1)]}
    (picture,) = page.post("/", form).context["pictures"]
    assert [shown.hit.person.person_id for shown in picture.faces[0].hits] == [str(PEOPLE[0])]


@every_model
def test_colour_matters_little(model):
    colour = [draw_face(person, side=112) for person in range(8)]
    grey = [picture.convert("L").convert("RGB") for picture in colour]
    vectors, of_grey = (
        embed_crops([np.array(picture) for picture in pictures], model).vectors
        for pictures in (colour, grey)
    )
    assert (vectors * of_grey).sum(1).mean() > 0.9
