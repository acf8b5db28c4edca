"""Bring a face into the pose that the networks were trained on."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

# Pixels (x, y) in a crop of 112×112: left eye, right eye, nose, left and right mouth corner.
TEMPLATE: Final = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float64,
)
TEMPLATE_SIZE: Final = 112
# Root mean square distance from their centre below which five points are one point.
_MIN_SPREAD: Final = 0.5  # pixels


def align_face(image: np.ndarray, landmarks: np.ndarray, size: int = 112) -> np.ndarray:
    """The face as a size×size×3 uint8 RGB crop; its edge pixels go on outside the picture.

    `image` is H×W×3 uint8 RGB, `landmarks` 5×2 (x, y) in its pixels, in the order of TEMPLATE.
    `ValueError` if the landmarks are not finite or practically one point: the caller treats that
    as no face.
    """
    import cv2

    matrix = similarity_transform(landmarks, TEMPLATE * (size / TEMPLATE_SIZE))
    source, matrix = _reduced_source(image, matrix, size)
    return cv2.warpAffine(
        source,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR,
        # Of 314 tight photos 86.3 % found their person first this way, 82.5 % with black outside.
        borderMode=cv2.BORDER_REPLICATE,
    )


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """2×3 float64 matrix of rotation, one scale and shift that brings `source` nearest `target`.

    Least squares over N×2 points, reflections excluded (Umeyama 1991, doi:10.1109/34.88573).
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if source.shape != target.shape or not np.isfinite(source).all():
        raise ValueError(f"Landmarks must be {len(target)} finite points.")
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    variance = (centred**2).sum() / len(source)
    if variance < _MIN_SPREAD**2:
        raise ValueError("Landmarks lie in practically one point.")
    covariance = (target - target_mean).T @ centred / len(source)
    left, singular, right = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    rotation_scaled = (left * signs) @ right * ((singular * signs).sum() / variance)
    return np.column_stack([rotation_scaled, target_mean - rotation_scaled @ source_mean])


def _reduced_source(
    image: np.ndarray, matrix: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """`image` averaged down where the warp would skip pixels, and the matrix to go with it."""
    import cv2

    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale >= 0.5:
        return image, matrix
    height, width = image.shape[:2]
    new_size = max(1, round(width * scale)), max(1, round(height * scale))
    fx, fy = new_size[0] / width, new_size[1] / height
    reduced = cv2.resize(image, new_size, interpolation=cv2.INTER_AREA)
    # Pixel centres: x_reduced = (x + 0.5) * fx - 0.5
    back = np.array([[1 / fx, 0, 0.5 / fx - 0.5], [0, 1 / fy, 0.5 / fy - 0.5], [0, 0, 1]])
    return reduced, matrix @ back


def whole_picture(image: np.ndarray, size: int = 112) -> np.ndarray:
    """The whole picture as if it were an aligned crop: size×size×3 uint8 RGB, antialiased.

    Width and height are scaled apart, as the system's ancestor did with crops.
    """
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(resized)
