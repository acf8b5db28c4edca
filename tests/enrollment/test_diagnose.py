"""`manage.py diagnose`: a real run, and a message for each failure."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from enrollment.models import FaceEmbedding, FaceImage
from recognition.vector_store import get_vector_store, reset_vector_store
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group
from tests.enrollment.gallery import MODEL, enroll, stored
from tests.enrollment.holder import held_by_another_process

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("weights")]


def diagnose() -> tuple[str, str]:
    """Return the printed lines and the final error."""
    output = io.StringIO()
    try:
        call_command("diagnose", stdout=output)
    except CommandError as error:
        return output.getvalue(), str(error)
    return output.getvalue(), ""


@pytest.mark.parametrize("more", [{}, {"NO_FACE_POLICY": "error"}, {"DETECTOR": "none"}])
def test_empty_gallery_works(db, settings, more):
    settings.RECOGNITION = settings.RECOGNITION | more
    output, error = diagnose()
    assert error == ""
    assert "a drawn picture, no face found" in output
    assert "none: Milvus and the picture storage equal SQL" in output


def test_enrolled_picture_is_embedded_and_finds_itself(draw_picture):
    enroll("ana", draw_picture(), use_face_detection=False)
    before = stored()
    output, error = diagnose()
    assert error == ""
    assert "1 person, 1 picture, embeddings: 1 indexed" in output
    assert "Python 3." in output and "torch 2." in output
    assert f"{MODEL}, weights {MODEL}.safetensors" in output
    assert "1 found, first: 1.0000" in output
    assert stored() == before


@pytest.mark.parametrize("chosen", [None, 2])
def test_picture_finds_itself_by_the_face_that_it_stands_for(chosen, settings):
    """A group photo was searched for by its largest face, and without a detector any photo as a whole:
    it was said to be missing, and an upgrade was put back."""
    shots = [as_jpeg(draw_face(seed, shot)) for seed in PEOPLE for shot in range(5)]
    enroll("many", *shots, use_face_detection=True)
    group = as_jpeg(draw_group())
    enroll("one", group, use_face_detection=True, face_index=chosen)
    if chosen is None:
        settings.RECOGNITION = settings.RECOGNITION | {"DETECTOR": "none"}
    output, error = diagnose()
    assert error == "", output
    assert "5 found, first: 1.0000" in output
    assert f"picture {FaceImage.objects.latest('pk').pk}, face found" in output


def test_file_that_is_enrolled_many_times_finds_itself(draw_picture):
    """Five others were as near, so it was said to be missing, and an upgrade was put back."""
    for number in range(9):
        enroll(f"p{number}", draw_picture(), use_face_detection=False)
    output, error = diagnose()
    assert error == "", output


def test_lost_vector_fails_search_and_drift(draw_picture):
    enroll("ana", draw_picture(), use_face_detection=False)
    get_vector_store().clear()
    output, error = diagnose()
    assert "Search, Drift" in error
    assert "is not among the 5 most similar" in output
    assert "1 embeddings missing in Milvus" in output


def test_missing_file_and_weights_are_told(draw_picture, no_weights):
    enrol_output, error = diagnose()
    assert "Model, Embedding" in error
    assert "has no weights on this server" in enrol_output


def test_beside_a_running_server_it_says_what_it_cannot_do(draw_picture, settings):
    enroll("ana", draw_picture(), use_face_detection=False)
    reset_vector_store()
    with held_by_another_process(settings.RECOGNITION["MILVUS_URI"]):
        output, error = diagnose()
    assert error == ""
    assert output.count("not now: the server has the vector database") == 3
    assert "/readyz" in output
    assert FaceEmbedding.objects.get().status == "indexed"
