"""Does a face stand before the camera, or is it a picture of a face, on paper or on a screen?

This is passive presentation attack detection (ISO/IEC 30107-1) by one picture. Two networks of
Silent-Face-Anti-Spoofing look at the face with more and with less of what is around it, as its authors
do, and the mean of what they say counts. Their files are fetched, not bundled.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from django.utils.translation import gettext

from recognition.conf import get_settings
from recognition.detection import Face
from recognition.exceptions import LivenessUnavailable
from recognition.extras import EXTRAS
from recognition.instrumentation import timed
from recognition.threads import network_threads

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

SIDE: Final = 80  # pixels of a network's square input
AROUND: Final = (2.7, 4.0)  # times the face's box that each network sees, in the order of the files
_LIVE: Final = 1  # the class of a face before the camera

_running = threading.Lock()  # torch divides each pass among all cores


def has_liveness() -> bool:
    """Return whether both files are in `WEIGHTS_DIR`."""
    return all(path.is_file() for path in _files())


def load_liveness() -> list[torch.nn.Module]:
    """Return the networks, loaded once a process.

    Raise `LivenessUnavailable` if their files are missing or unusable.
    """
    return _networks(*_files())


def liveness_of(picture: np.ndarray, faces: Sequence[Face]) -> list[float]:
    """Return the liveness (0 to 1) of faces in an H×W×3 uint8 RGB picture: how probable it is that each
    stands before the camera.

    Raise `LivenessUnavailable` if the networks' files are missing or unusable.
    """
    networks = load_liveness()
    if not faces:
        return []
    with timed("liveness"), _running:
        classes = np.mean(
            [
                _classified(network, [surroundings(picture, face, times) for face in faces])
                for network, times in zip(networks, AROUND, strict=True)
            ],
            axis=0,
        )
    return [float(row[_LIVE]) for row in classes]


def surroundings(picture: np.ndarray, face: Face, times: float) -> np.ndarray:
    """Return the face, upright, in the middle of `times` its box, 80×80×3 uint8 RGB.

    Where that reaches beyond the picture it is moved inside, and made smaller if need be.
    """
    import cv2

    size = np.array(picture.shape[1::-1], float)
    corner, sides = np.array(face.box[:2]), np.maximum(face.box[2:], 1.0)
    wanted = sides * min(times, *((size - 1) / sides))
    start = np.clip(corner + (sides - wanted) / 2, 0, size - 1 - wanted).astype(int)
    (left, top), (right, bottom) = start, start + wanted.astype(int)
    cut = picture[top : bottom + 1, left : right + 1]
    seen = cv2.resize(cut, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return np.rot90(seen, -face.rotation // 90)


def _classified(network: torch.nn.Module, seen: Iterable[np.ndarray]) -> np.ndarray:
    """Return the N×3 probabilities that the network gives to N×80×80×3 uint8 RGB."""
    import torch

    blue_first = np.ascontiguousarray(np.stack(list(seen))[..., ::-1].transpose(0, 3, 1, 2))
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(blue_first).float()).numpy())


def _files() -> list[Path]:
    return [get_settings().weights_dir / name for name in EXTRAS["liveness"].published]


@lru_cache(maxsize=1)
def _networks(*files: Path) -> list[torch.nn.Module]:
    if not has_liveness():
        raise _unavailable()
    import torch

    from recognition.liveness.minifasnet import V1SE, V2, MiniFasNet

    torch.set_num_threads(network_threads())
    networks: list[torch.nn.Module] = []
    for file, widths in zip(files, (V2, V1SE), strict=True):
        network = MiniFasNet(widths).eval()
        try:
            saved = torch.load(file, map_location="cpu", weights_only=True)
            network.load_state_dict({k.removeprefix("module."): v for k, v in saved.items()})
        except Exception as error:  # torch raises whatever a damaged file makes it raise
            logger.exception("The liveness network %s cannot be loaded", file.name)
            raise _unavailable() from error
        networks.append(network)
    return networks


def _unavailable() -> LivenessUnavailable:
    return LivenessUnavailable(
        gettext(
            "The networks of the liveness check are not on this server, or cannot be loaded. Have the "
            "administrator run 'manage.py fetch_weights liveness', or 'manage.py verify_weights liveness' to see "
            "what is wrong with them, or search without it."
        )
    )
