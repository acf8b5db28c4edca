"""Alignment maps a face to the template from any position, size and rotation."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from recognition.alignment import TEMPLATE, align_face, similarity_transform, whole_picture


def placed(scale: float, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    """Return the landmarks of a scaled, rotated and shifted face."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (TEMPLATE @ turn.T * scale + shift).astype(np.float32)


def photo_with_dots(landmarks: np.ndarray, radius: float) -> np.ndarray:
    """Return a dark 500×600 picture with a white disc on each landmark."""
    y, x = np.mgrid[:500, :600]
    image = np.full((500, 600, 3), 20, np.uint8)
    for point in landmarks:
        image[np.hypot(x - point[0], y - point[1]) <= radius] = 255
    return image


def centres_of_light(crop: np.ndarray) -> np.ndarray:
    """Return the centre of brightness within 7 pixels of each template point."""
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]]
    light = crop[..., 0].astype(float) - 20
    near = [np.hypot(x - point[0], y - point[1]) <= 7 for point in TEMPLATE]
    return np.array([np.average([x[m], y[m]], axis=1, weights=light[m]) for m in near])


@pytest.mark.parametrize(
    ("scale", "degrees", "shift"),
    [
        pytest.param(1.0, 0, (30, 40), id="shifted"),
        pytest.param(1.5, 30, (200, 60), id="turned"),
        pytest.param(0.8, -90, (100, 300), id="on-its-side"),
        pytest.param(3.7, 12, (90, 30), id="scaled-down"),
    ],
)
def test_landmarks_land_on_the_template(scale, degrees, shift):
    landmarks = placed(scale, degrees, shift)

    crop = align_face(photo_with_dots(landmarks, 4 * scale), landmarks)

    assert crop.shape == (112, 112, 3)
    assert crop.dtype == np.uint8
    assert np.abs(centres_of_light(crop) - TEMPLATE).max() < 0.35


def test_aligned_crop_stays_as_it_is():
    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)

    assert np.array_equal(align_face(crop, TEMPLATE), crop)


def test_edge_pixels_go_on_outside_the_picture():
    image = np.full((200, 200, 3), 90, np.uint8)
    image[:, 0] = (10, 20, 30)

    crop = align_face(image, placed(1.0, 0, (-60, 0)))

    assert np.array_equal(crop[56, 0], (10, 20, 30))
    assert np.array_equal(crop[56, 100], (90, 90, 90))


def test_face_wholly_outside_still_gives_a_crop():
    crop = align_face(np.full((50, 50, 3), 7, np.uint8), placed(1.0, 0, (5000, -5000)))

    assert (crop == 7).all()


def test_strong_reduction_does_not_alias():
    """Single-pixel noise must average out instead of surviving the scaling."""
    noise = np.random.default_rng(1).integers(0, 2, (1200, 1200, 1), dtype=np.uint8) * 255
    image = np.repeat(noise, 3, axis=2)

    crop = align_face(image, placed(10, 0, (20, 20)))

    assert crop.std() < 20
    assert abs(crop.mean() - 127.5) < 2


def test_picture_wider_than_opencv_can_warp():
    image = np.zeros((120, 40_000, 3), np.uint8)
    image[:, 39_000:] = 200

    assert (align_face(image, placed(1.0, 0, (39_500, 0)))[:112] == 200).all()


@pytest.mark.parametrize(
    "landmarks",
    [
        pytest.param(np.full((5, 2), np.nan), id="nan"),
        pytest.param(TEMPLATE * [1, np.inf], id="infinite"),
        pytest.param(np.full((5, 2), 40.0), id="one-point"),
        pytest.param(TEMPLATE[:4], id="four-points"),
    ],
)
def test_impossible_landmarks_are_refused(landmarks):
    with pytest.raises(ValueError, match="Landmarks"):
        align_face(np.zeros((100, 100, 3), np.uint8), landmarks)


def test_similarity_never_mirrors():
    mirrored = TEMPLATE * [-1, 1]

    matrix = similarity_transform(mirrored, TEMPLATE)

    assert np.linalg.det(matrix[:, :2]) > 0


def test_whole_picture_of_a_crop_is_the_crop():
    crop = np.random.default_rng(2).integers(0, 256, (112, 112, 3), dtype=np.uint8)

    assert np.array_equal(whole_picture(crop), crop)


def test_whole_picture_scales_sides_apart_and_averages():
    noise = np.random.default_rng(3).integers(0, 2, (900, 1500, 1), dtype=np.uint8) * 255
    noise[:, :750] = 0

    resized = whole_picture(np.repeat(noise, 3, axis=2))

    assert resized.shape == (112, 112, 3)
    assert (resized[:, :55] == 0).all()
    assert resized[:, 60:].std() < 20


def test_photo_path_matches_aligned_crops(faces):
    """Crops that another program aligned from the same files, by MTCNN's landmarks as they are, look nearly
    the same: ours are moved by some pixels (15 grey levels), as those of YuNet are."""
    import io
    import zipfile

    from recognition.detection import detect_faces
    from recognition.imaging import read_image

    archive = faces.parent / "aligned.zip"
    if not archive.is_file():
        pytest.skip(f"No aligned crops at {archive}.")
    with zipfile.ZipFile(archive) as crops:
        wanted = {name.rsplit("/", 1)[-1]: name for name in crops.namelist()}
        differences = []
        for photo in sorted(faces.glob("*/*.jpg"))[::40]:
            picture = read_image(photo.read_bytes())
            crop = align_face(picture.pixels, detect_faces(picture.pixels)[0].landmarks)
            other = Image.open(io.BytesIO(crops.read(wanted[photo.name]))).convert("RGB")
            differences.append(np.abs(crop.astype(int) - np.asarray(other)).mean())

    assert np.median(differences) < 20
