"""Random augmentation of single crops on the CPU: 0.5 ms a crop at 64 pixels, 1 ms at 112.

Training pictures come from good cameras and good detectors. Users' pictures are grey, badly lit,
small, compressed, occluded and not always well aligned. `training.gpu_augmentation` uses the same
ranges for whole batches.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from recognition.networks.registry import CROP_SIZE

TURN = 4.0  # degrees, standard deviation, like the error of a detector
TURN_MOST, TURN_SHARE = 12.0, 0.2  # uniform within these degrees, for this share of crops
ZOOM, STRETCH = 0.05, 0.02  # standard deviations of the logarithms of the scale and aspect
SHIFT, SHIFT_MOST = 2.0, 7.0  # pixels of 112: standard deviation, limit
GREY_SHARE, SATURATION_SHARE, SATURATION = 0.2, 0.4, (0.4, 1.4)
LIGHT_SHARE, GAMMA, CONTRAST, BRIGHTNESS = 0.8, 0.45, (0.65, 1.3), 0.12
MIDDLE = 0.45  # grey level that a change of contrast keeps
TINT_SHARE, TINT = 0.6, 0.18  # a colour cast, for this share of crops with changed light
SIDE_LIGHT_SHARE, SIDE_LIGHT = 0.12, ((0.35, 0.8), (1.0, 1.25))
SMALL_SHARE, SMALL = 0.18, (22, 80)  # side of the reduced crop, in pixels of 112
BLUR_SHARE, BLUR = 0.10, (0.5, 2.0)  # pixels of 112, standard deviation
MOTION_SHARE, MOTION = 0.05, (3, 8)  # pixels
NOISE_SHARE, NOISE = 0.10, (2.0, 12.0)  # grey levels of 255, standard deviation
JPEG_SHARE, JPEG = 0.12, (12, 59)  # quality
COVER_SHARE = 0.18  # 45 % of them by a rectangle, 25 % by a mask, 30 % by glasses
RECTANGLE, MASK = 0.45, 0.25


def augment(
    image: np.ndarray, rng: np.random.Generator, plain: float = 0.0, size: int = CROP_SIZE
) -> np.ndarray:
    """Augment a 112×112×3 uint8 RGB crop; return size×size×3 uint8 RGB.

    With probability `plain` it is only mirrored or left unchanged, so that the network also learns
    good pictures.
    """
    mirror = rng.random() < 0.5
    if rng.random() < plain:
        image = np.ascontiguousarray(image[:, ::-1] if mirror else image)
        return image if size == CROP_SIZE else cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)  # fmt: skip
    image = _move(image, rng, mirror, size)
    image = _colour(image, rng)
    image = _light(image, rng)
    image = _coarsen(image, rng)
    return _cover(image, rng)


def _move(image: np.ndarray, rng: np.random.Generator, mirror: bool, size: int) -> np.ndarray:
    """Rotate, scale, stretch, shift and mirror, and resize, in a single resampling."""
    usual = rng.random() >= TURN_SHARE
    angle = math.radians(rng.normal(0, TURN) if usual else rng.uniform(-TURN_MOST, TURN_MOST))
    down = math.exp(rng.normal(0, ZOOM))
    across = down * math.exp(rng.normal(0, STRETCH))
    shift = np.clip(rng.normal(0, SHIFT, 2), -SHIFT_MOST, SHIFT_MOST)
    cosine, sine = math.cos(angle), math.sin(angle)
    linear = np.array([[across * cosine, -down * sine], [across * sine, down * cosine]])
    if mirror:
        linear[:, 0] *= -1
    centre = np.full(2, (CROP_SIZE - 1) / 2)
    offset = centre + shift - linear @ centre
    ratio = size / CROP_SIZE
    matrix = np.column_stack((linear * ratio, offset * ratio + (ratio - 1) / 2))
    return cv2.warpAffine(
        image,
        matrix.astype(np.float32),
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def _colour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Convert to grey, or change the saturation."""
    chance = rng.random()
    if chance >= GREY_SHARE + SATURATION_SHARE:
        return image
    grey = cv2.merge([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)] * 3)
    if chance < GREY_SHARE:
        return grey
    saturation = rng.uniform(*SATURATION)
    return cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)


def _light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change gamma, contrast, brightness and tint; sometimes add light from one side."""
    if rng.random() < LIGHT_SHARE:
        level = np.arange(256, dtype=np.float32) / 255
        level = level ** math.exp(rng.uniform(-GAMMA, GAMMA))
        level = (level - MIDDLE) * rng.uniform(*CONTRAST) + MIDDLE
        level += rng.uniform(-BRIGHTNESS, BRIGHTNESS)
        tint = rng.uniform(-TINT, TINT, 3) if rng.random() < TINT_SHARE else np.zeros(3)
        table = np.clip(level[:, None] * (1 + tint), 0, 1) * 255
        image = cv2.LUT(image, table.astype(np.uint8)[None])
    if rng.random() < SIDE_LIGHT_SHARE:
        dark, bright = (rng.uniform(*limits) for limits in SIDE_LIGHT)
        ramp = np.linspace(dark, bright, len(image), dtype=np.float32)
        ramp = ramp[::-1] if rng.random() < 0.5 else ramp
        ramp = ramp[None, :, None] if rng.random() < 0.75 else ramp[:, None, None]
        image = np.clip(image * ramp, 0, 255).astype(np.uint8)
    return image


def _coarsen(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reduce the resolution, or blur; then add noise; then compress as JPEG. Each is applied at
    random."""
    size, chance = len(image), rng.random()
    if chance < SMALL_SHARE:
        fewest, most = (math.log(side) for side in SMALL)
        side = max(2, round(size / CROP_SIZE * math.exp(rng.uniform(fewest, most))))
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        up = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
        image = cv2.resize(image, (size, size), interpolation=up)
    elif chance < SMALL_SHARE + BLUR_SHARE:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*BLUR) * size / CROP_SIZE)
    elif chance < SMALL_SHARE + BLUR_SHARE + MOTION_SHARE:
        length = int(rng.integers(MOTION[0], MOTION[1] + 1))
        image = cv2.blur(image, (length, 1) if rng.random() < 0.5 else (1, length))
    if rng.random() < NOISE_SHARE:
        noise = rng.normal(0, rng.uniform(*NOISE), image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < JPEG_SHARE:
        quality = int(rng.integers(JPEG[0], JPEG[1] + 1))
        content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]
    return image


def _cover(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cover a rectangle, the mouth like a mask, or the eyes like glasses, with one colour."""
    if rng.random() >= COVER_SHARE:
        return image
    image, size, chance = np.array(image), len(image), rng.random()
    if chance < RECTANGLE:
        height, width = rng.uniform(0.12, 0.4, 2)
        top, left = rng.uniform(-0.05, 0.9, 2)
    elif chance < RECTANGLE + MASK:
        top, left, height = rng.uniform(0.58, 0.68), rng.uniform(0.05, 0.2), 0.45
        width = rng.uniform(0.6, 0.85)
    else:
        top, left = rng.uniform(0.33, 0.4), 0.12
        height, width = rng.uniform(0.12, 0.22), 0.76
    rows, columns = (
        slice(max(round(start * size), 0), max(round((start + length) * size), 0))
        for start, length in ((top, height), (left, width))
    )
    grey = rng.random() >= 0.7
    image[rows, columns] = rng.integers(0, 256) if grey else rng.integers(0, 256, 3)
    return image
