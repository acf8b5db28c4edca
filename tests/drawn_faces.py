"""Drawn people that the detector accepts as faces, for tests without photos and for the docs."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]

PEOPLE = (4, 7, 8)  # seeds whose faces are found, alone and in the group
GROUNDS = ((176, 196, 214), (206, 214, 190), (214, 200, 186), (190, 190, 204))
SKINS = ((233, 194, 166), (198, 142, 105), (141, 94, 66), (245, 214, 192), (170, 116, 82))
HAIRS = ((40, 28, 22), (92, 58, 32), (20, 18, 20), (176, 128, 62), (120, 120, 124))
EYES = ((70, 50, 35), (60, 90, 120), (70, 100, 70))
LIPS = (190, 40, 50)


class Person(NamedTuple):
    """The proportions of a drawn person, as shares of the picture's side, or of half the face's
    width (w) or height (h)."""

    skin: Colour
    hair: Colour
    w: float
    h: float
    clothes: Colour
    long_hair: bool
    eye_gap: float
    eye_height: float
    eye_width: float
    eye_opening: float
    iris: Colour
    brow_height: float
    nose_length: float
    nose_width: float
    mouth_height: float
    mouth_width: float
    lips: float

    @classmethod
    def of(cls, seed: int) -> Person:
        chance = random.Random(seed)
        between, one_of = chance.uniform, chance.choice
        return cls(
            skin=one_of(SKINS),
            hair=one_of(HAIRS),
            w=between(0.23, 0.27),
            h=between(0.31, 0.35),
            clothes=tuple(chance.randrange(40, 180) for _ in range(3)),
            long_hair=chance.random() < 0.5,
            eye_gap=between(0.40, 0.46),
            eye_height=between(0.06, 0.12),
            eye_width=between(0.2, 0.24),
            eye_opening=between(0.5, 0.65),
            iris=one_of(EYES),
            brow_height=between(0.17, 0.2),
            nose_length=between(0.24, 0.3),
            nose_width=between(0.17, 0.24),
            mouth_height=between(0.52, 0.58),
            mouth_width=between(0.38, 0.48),
            lips=between(0.07, 0.1),
        )


class Brush:
    """A brush that draws round shapes, given by their centre and half size."""

    def __init__(self, image: Image.Image) -> None:
        self.draw = ImageDraw.Draw(image)

    def oval(self, x: float, y: float, w: float, h: float, colour: Colour) -> None:
        self.draw.ellipse([x - w, y - h, x + w, y + h], fill=colour)

    def arc(self, x, y, w, h, start: int, end: int, colour: Colour, width: float) -> None:
        self.draw.arc([x - w, y - h, x + w, y + h], start, end, fill=colour, width=round(width))


def draw_face(seed: int, shot: int = 0, side: int = 360) -> Image.Image:
    """Draw a person, always the same for a seed. Other `shot`s differ in background, light and
    tilt."""
    return _face(seed, shot, side).copy()


@cache  # most tests ask for the same few
def _face(seed: int, shot: int, side: int) -> Image.Image:
    person, size = Person.of(seed), 2 * side
    image = Image.new("RGB", (size, size), GROUNDS[(seed + shot) % len(GROUNDS)])
    x, y, w, h = size / 2, size * 0.52, person.w * size, person.h * size
    _draw_body(image, person, x, y, w, h)
    brush = Brush(image)
    for mirror in (-1, 1):
        _draw_eye(brush, person, x, y, w, h, mirror)
    _draw_nose(brush, person, x, y, w, h)
    _draw_mouth(brush, person, x, y, w, h)
    image = image.rotate((0, 4, -5, 7)[shot % 4], fillcolor=GROUNDS[(seed + shot) % len(GROUNDS)])
    image = image.filter(ImageFilter.GaussianBlur(size * 0.004)).resize((side, side))
    light = (1, 0.86, 1.08, 0.94)[shot % 4]
    noise = np.random.default_rng(seed * 100 + shot).normal(0, 3, (side, side, 1))
    return Image.fromarray((np.asarray(image) * light + noise).clip(0, 255).astype("uint8"))


def _draw_body(image: Image.Image, person: Person, x, y, w, h) -> None:
    size, brush = image.width, Brush(image)
    brush.oval(x, y + 1.675 * h, 0.42 * size, 0.725 * h, person.clothes)
    neck = [x - 0.45 * w, y + 0.6 * h, x + 0.45 * w, y + 1.25 * h]
    brush.draw.rectangle(neck, fill=_shade(person.skin, 0.72))
    brush.draw.ellipse(
        [x - 1.2 * w, y - 1.25 * h, x + 1.2 * w, y + (0.55 if person.long_hair else 0.1) * h],
        fill=person.hair,
    )
    brush.oval(x, y, w, h, person.skin)
    shadow = Image.new("L", image.size, 0)
    ImageDraw.Draw(shadow).ellipse([x - w, y - h, x + w, y + h], fill=130)
    ImageDraw.Draw(shadow).ellipse([x - 1.05 * w, y - 1.05 * h, x + 0.75 * w, y + 0.9 * h], fill=0)
    shadow = shadow.filter(ImageFilter.GaussianBlur(0.03 * size))
    image.paste(Image.new("RGB", image.size, _shade(person.skin, 0.72)), (0, 0), shadow)
    fringe = [x - 1.05 * w, y - 1.12 * h, x + 1.05 * w, y + 0.3 * h]
    brush.draw.chord(fringe, 190, 350, fill=person.hair)


def _draw_eye(brush: Brush, person: Person, x, y, w, h, mirror: int) -> None:
    x, y = x + mirror * person.eye_gap * w, y - person.eye_height * h
    wide = person.eye_width * w
    high = wide * person.eye_opening
    brush.oval(x, y, 1.35 * wide, 1.6 * high, _shade(person.skin, 0.88))
    brush.oval(x, y, wide, high, (245, 243, 240))
    brush.oval(x, y, 0.95 * high, 0.95 * high, person.iris)
    brush.oval(x, y, 0.45 * high, 0.45 * high, (10, 10, 10))
    brush.arc(x, y, 1.1 * wide, 1.2 * high, 190, 350, (30, 20, 18), 0.03 * w)
    brow = y - person.brow_height * h
    brush.arc(x, brow + 0.85 * high, 1.4 * wide, 1.15 * high, 200, 340, person.hair, 0.064 * w)


def _draw_nose(brush: Brush, person: Person, x, y, w, h) -> None:
    top, end = y - person.eye_height * h, y + person.nose_length * h
    wide = person.nose_width * w
    ridge = [(x - 0.35 * wide, top), (x + 0.35 * wide, top), (x + wide, end), (x - wide, end)]
    side = [(x + 0.1 * wide, top), (x + 0.5 * wide, top), (x + wide, end), (x + 0.3 * wide, end)]
    brush.draw.polygon(ridge, fill=_shade(person.skin, 0.95))
    brush.draw.polygon(side, fill=_shade(person.skin, 0.86))
    brush.oval(x, end, wide, 0.52 * wide, _shade(person.skin, 0.93))
    for mirror in (-1, 1):
        nostril = x + mirror * 0.5 * wide
        brush.oval(nostril, end + 0.22 * wide, 0.22 * wide, 0.18 * wide, _shade(person.skin, 0.45))


def _draw_mouth(brush: Brush, person: Person, x, y, w, h) -> None:
    y, wide, high = y + person.mouth_height * h, person.mouth_width * w, person.lips * h
    lips = tuple(round(0.75 * a + 0.25 * b) for a, b in zip(person.skin, LIPS, strict=True))
    brush.oval(x, y, wide, 1.05 * high, lips)
    brush.arc(x, y - 0.5 * high, wide, 1.1 * high, 15, 165, (90, 35, 35), 0.03 * w)


def _shade(colour: Colour, share: float) -> Colour:
    return tuple(int(share * value) for value in colour)


def draw_group(people: Sequence[int] = PEOPLE) -> Image.Image:
    """Draw these people in one picture, from left to right, in other shots than alone."""
    images = [draw_face(seed, shot) for shot, seed in enumerate(people, 1)]
    whole = Image.new("RGB", (sum(i.width for i in images), max(i.height for i in images)))
    for at, image in enumerate(images):
        whole.paste(image, (at * image.width, 0))
    return whole


def as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
