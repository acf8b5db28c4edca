"""New weights: the old vectors answer until the new ones are ready, and again when the old file
returns."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from enrollment.corrections import delete_person, restore
from enrollment.models import FaceEmbedding, Person, TrashItem
from enrollment.upkeep import Kind, reconcile
from enrollment.upkeep.backlog import note_missing, work_off
from recognition.health import examine
from recognition.networks import find_weights
from recognition.networks.loader import unload_networks
from recognition.vector_store import get_vector_store, reset_vector_store
from tests.commands import run
from tests.enrollment.gallery import MODEL, enroll, found, stored
from tests.enrollment.holder import held_by_another_process
from tests.pictures import draw_picture

pytestmark = pytest.mark.django_db(transaction=True)
FILE = f"{MODEL}.ckpt"


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory) -> Path:
    """Equally good weights that are not comparable: they permute the numbers of the embedding."""
    import torch
    from safetensors.torch import load_file

    state = load_file(Path(__file__).resolve().parents[2] / "weights" / f"{MODEL}.safetensors")
    last = [name for name, tensor in state.items() if tensor.shape[:1] == (512,)]
    for name in last[-5:]:
        state[name] = state[name].roll(7, dims=0)
    path = tmp_path_factory.mktemp("other") / FILE
    torch.save(state, path)
    return path


@pytest.fixture
def folders(settings, tmp_path, other_weights) -> tuple[Path, Path]:
    """`WEIGHTS_DIR` with the current weights, and a folder with the next ones."""
    now, coming = tmp_path / "weights", tmp_path / "next"
    now.mkdir()
    coming.mkdir()
    bundled = settings.BASE_DIR / "weights" / f"{MODEL}.safetensors"
    shutil.copy(bundled, now)
    shutil.copy(other_weights, coming)
    # Other weights would have to be converted for OpenVINO, which takes seconds.
    own = {"WEIGHTS_DIR": now, "NETWORK_RUNTIME": "torch"}
    settings.RECOGNITION = settings.RECOGNITION | own
    unload_networks()
    return now, coming


@pytest.fixture
def pictures(folders) -> list[bytes]:
    pictures = [draw_picture(seed=seed) for seed in range(3)]
    for number, picture in enumerate(pictures):
        enroll(f"person {number}", picture, use_face_detection=False)
    return pictures


def answers(pictures: list[bytes]) -> list[str]:
    return [next(iter(found(picture, 1)), "nobody") for picture in pictures]


def reindex(settings, folder: Path, *words: str) -> str:
    """Run `reindex` as another process whose WEIGHTS_DIR is `folder`."""
    before = settings.RECOGNITION
    settings.RECOGNITION = before | {"WEIGHTS_DIR": folder}
    told = run("reindex", *words)
    settings.RECOGNITION = before
    return told


PERSONS = ["person 0", "person 1", "person 2"]


def test_both_weights_answer_side_by_side_and_each_way(settings, folders, pictures) -> None:
    now, coming = folders
    old = find_weights(MODEL).fingerprint
    assert "3 embeddings indexed, 0 removed" in reindex(settings, coming, "--keep")
    assert answers(pictures) == PERSONS
    assert FaceEmbedding.objects.count() == 6 and len(stored()) == 6

    get_vector_store().clear()  # those of the next weights were not copied again, nor noticed
    assert note_missing() == 6
    assert work_off(timezone.now()).indexed == 6 and len(stored()) == 6

    shutil.move(coming / FILE, now / FILE)
    assert find_weights(MODEL).fingerprint != old
    assert answers(pictures) == PERSONS

    shutil.move(now / FILE, coming / FILE)
    assert find_weights(MODEL).fingerprint == old
    assert answers(pictures) == PERSONS


def test_who_comes_back_from_the_trash_is_found_with_the_weights_of_now(
    settings, folders, pictures
) -> None:
    now, coming = folders
    delete_person(Person.objects.get(person_id="person 0"))
    shutil.copy(coming / FILE, now)
    reindex(settings, now)
    restore(TrashItem.objects.get())
    assert answers(pictures) == PERSONS


def test_the_health_names_how_many_are_found_no_more(settings, folders, pictures) -> None:
    """A server with new weights answered "unknown" to every enrolled face and called itself healthy."""
    now, coming = folders
    assert examine().warnings == []
    shutil.copy(coming / FILE, now)
    assert answers(pictures) == ["nobody"] * 3
    (warning,) = examine().warnings
    assert "3 enrolled pictures are found by no search" in warning and "reindex" in warning
    reindex(settings, now)
    assert answers(pictures) == PERSONS
    assert examine().warnings == []


def test_the_health_names_a_model_that_came_after_the_pictures(folders, pictures) -> None:
    """A search with it answered "unknown" to every enrolled face, and the health knew of nothing."""
    now, _coming = folders
    (now / "resnet50_cosface.ckpt").write_bytes(b"fetched later")
    (warning,) = examine().warnings
    assert "3 enrolled pictures are found by no search with cosface_resnet50" in warning
    call_command("reindex", "--check", "--model", MODEL)


def test_last_step_drops_the_old_ones(settings, folders, pictures) -> None:
    now, coming = folders
    reindex(settings, coming, "--keep")
    shutil.move(coming / FILE, now / FILE)
    assert reconcile(mend=False).found.keys() == {Kind.STALE}
    assert "0 embeddings indexed, 3 removed, 1 partitions dropped" in reindex(settings, now)
    assert answers(pictures) == PERSONS
    assert reconcile(mend=False).found == {}


def test_pictures_enrolled_meanwhile_follow(settings, folders, pictures) -> None:
    now, coming = folders
    reindex(settings, coming, "--keep")
    late = draw_picture(seed="late")
    enroll("late", late, use_face_detection=False)
    shutil.move(coming / FILE, now / FILE)
    assert answers([late]) != ["late"]
    assert "1 embeddings indexed, 0 removed" in reindex(settings, now, "--keep")
    assert answers([late, *pictures]) == ["late", *PERSONS]


def test_interrupted_run_keeps_the_old_ones_answering(
    settings, folders, pictures, monkeypatch
) -> None:
    _now, coming = folders
    from enrollment.index import indexing

    for size in ("BATCH_SIZE", "COPY_SIZE"):
        monkeypatch.setattr(f"enrollment.index.progress.{size}", 1)
    index, calls = indexing.index_rows, []

    def interrupted(ids, **begun):
        calls.append(ids)
        if len(calls) == 2:
            raise RuntimeError("killed")
        return index(ids, **begun)

    before = settings.RECOGNITION
    with monkeypatch.context() as patch:
        patch.setattr("enrollment.index.index_rows", interrupted)
        with pytest.raises(RuntimeError):
            reindex(settings, coming, "--keep")
    settings.RECOGNITION = before
    assert answers(pictures) == PERSONS
    assert "2 embeddings indexed" in reindex(settings, coming, "--keep")


def test_beside_a_server_vectors_are_made_and_the_server_copies_them(
    settings, folders, pictures
) -> None:
    now, coming = folders
    reset_vector_store()
    with held_by_another_process(settings.RECOGNITION["MILVUS_URI"]):
        output = reindex(settings, coming, "--keep")
        assert "3 embeddings computed; 3 wait for the server" in output
        again = reindex(settings, coming, "--keep")
        assert "0 embeddings computed; 3 wait for the server" in again
        with pytest.raises(CommandError, match="open in another process"):
            call_command("reindex", "--keep", "--check")
    assert answers(pictures) == PERSONS

    assert work_off(timezone.now()).indexed == 3  # what the server does every minute
    assert answers(pictures) == PERSONS
    shutil.move(coming / FILE, now / FILE)
    assert answers(pictures) == PERSONS


def test_server_leaves_what_other_weights_must_compute(settings, folders, pictures) -> None:
    FaceEmbedding.objects.filter(face_image__person__person_id="person 0").update(
        fingerprint="0123456789abcdef", status="pending", vector=None
    )
    assert not work_off(timezone.now() + timedelta(hours=1))
    assert FaceEmbedding.objects.filter(status="pending", error="").count() == 1


def test_file_replaced_while_serving_is_loaded_at_the_next_request(folders, pictures) -> None:
    """Without 'reindex --keep' before, searches find nobody rather than a wrong person."""
    now, coming = folders
    assert answers(pictures) == PERSONS
    (coming / FILE).replace(now / FILE)
    assert answers(pictures) == ["nobody"] * 3
