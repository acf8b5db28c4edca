"""Random changes of single crops on the processor: 0.5 ms for one at 64 pixels, 1 ms at 112.

Training pictures come from a good camera and a good detector; those of users are grey, badly lit,
small, compressed, covered and not always well aligned. The ranges here hold for
`training.gpu_augmentation` too, which does the same to a whole batch.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from recognition.networks.registry import CROP_SIZE

TURN = 4.0  # degrees, standard deviation: what a detector errs
TURN_MOST, TURN_SHARE = 12.0, 0.2  # degrees, uniform, of this share
ZOOM, STRETCH = 0.05, 0.02  # standard deviations of the logarithm
SHIFT, SHIFT_MOST = 2.0, 7.0  # of 112 pixels: standard deviation, limit
GREY_SHARE, SATURATION_SHARE, SATURATION = 0.2, 0.4, (0.4, 1.4)
LIGHT_SHARE, GAMMA, CONTRAST, BRIGHTNESS = 0.8, 0.45, (0.65, 1.3), 0.12
MIDDLE = 0.45  # the grey that contrast turns around
TINT_SHARE, TINT = 0.6, 0.18  # a colour cast or a wrong white balance, of the lit
SIDE_LIGHT_SHARE, SIDE_LIGHT = 0.12, ((0.35, 0.8), (1.0, 1.25))
SMALL_SHARE, SMALL = 0.18, (22, 80)  # pixels of 112 that are left
BLUR_SHARE, BLUR = 0.10, (0.5, 2.0)  # of 112 pixels, standard deviation
MOTION_SHARE, MOTION = 0.05, (3, 8)  # pixels
NOISE_SHARE, NOISE = 0.10, (2.0, 12.0)  # of 255, standard deviation
JPEG_SHARE, JPEG = 0.12, (12, 59)  # quality
COVER_SHARE = 0.18  # of them 45 % a rectangle, 25 % a mask, 30 % glasses
RECTANGLE, MASK = 0.45, 0.25


def augment(
    image: np.ndarray, rng: np.random.Generator, plain: float = 0.0, size: int = CROP_SIZE
) -> np.ndarray:
    """112×112×3 uint8 RGB to size×size×3 uint8 RGB, changed at random.

    With the probability `plain` it is mirrored at most: a network also has to know the pictures
    that nothing is wrong with.
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
    """Turns, scales, stretches, shifts and mirrors, and brings to the size, all in one sampling."""
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
    """Grey, or more or less saturated."""
    chance = rng.random()
    if chance >= GREY_SHARE + SATURATION_SHARE:
        return image
    grey = cv2.merge([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)] * 3)
    if chance < GREY_SHARE:
        return grey
    saturation = rng.uniform(*SATURATION)
    return cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)


def _light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma, contrast, brightness and tint by a table; sometimes light from one side."""
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
    """Low resolution, blur or shake; noise; JPEG."""
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
    """Hides a rectangle, the mouth as by a mask, or the eyes as by glasses, in one colour."""
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
