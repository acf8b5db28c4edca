"""Crops are cut from photos as in the service, each into the folder of its person."""

import numpy as np
from PIL import Image

from recognition.embedding import crop_upload
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from training.align import align


def test_faces_are_cut_out_and_pictures_without_one_are_named(tmp_path, picture):
    ana = tmp_path / "photos" / "ana"
    ana.mkdir(parents=True)
    photo = as_jpeg(draw_face(PEOPLE[0]))
    (ana / "1.jpg").write_bytes(photo)
    (ana / "wall.jpg").write_bytes(picture)
    (ana / "notes.txt").write_text("Ana, 2024")
    written, refused = align(tmp_path / "photos", tmp_path / "crops")
    assert written == 1
    assert [line.partition(":")[0].rsplit("/")[-1] for line in refused] == ["notes.txt", "wall.jpg"]
    [crop] = (tmp_path / "crops").rglob("*.*")
    assert crop.relative_to(tmp_path / "crops").as_posix() == "ana/1.png"
    [expected] = crop_upload(photo)
    assert np.array_equal(np.asarray(Image.open(crop)), expected.pixels)
