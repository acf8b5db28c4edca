"""Does a face stand before the camera, or is it a picture of a face, on paper or on a screen?

This is passive presentation attack detection (ISO/IEC 30107-1) by one picture. Two networks of
Silent-Face-Anti-Spoofing look at the face with more and with less of what is around it, as its authors
do, and the mean of what they say counts. Their files are fetched, not bundled. They run on the
processor, also where there is a GPU: a face takes 4 ms.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from django.utils.translation import gettext

from recognition.conf import get_settings
from recognition.detection import Face, looks_for_faces
from recognition.exceptions import LivenessUnavailable, WeightsUnavailable
from recognition.extras import EXTRAS
from recognition.instrumentation import timed
from recognition.networks import LoadedNetwork
from recognition.networks.loader import has_failed, load_once, run_on_processor
from recognition.networks.registry import Network
from recognition.networks.runtime import Runtime
from recognition.networks.weights import WeightsFile, weights_file

logger = logging.getLogger(__name__)

SIDE: Final = 80  # pixels of a network's square input
MOST_DIFFERENCE: Final = 1e-4  # of a runtime's probabilities from torch's
_BATCH: Final = 8  # faces at once: OpenVINO keeps its buffers at the size of the largest batch
_LIVE: Final = 1  # the class of a face before the camera
_V2, _V1SE = EXTRAS["liveness"].published  # the files that `fetch_weights` puts there


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessNetwork(Network):
    """A network that returns the probabilities of a picture on paper, a face, and one on a screen."""

    side: int = SIDE
    outputs: int = 3
    file: str  # in `WEIGHTS_DIR`
    around: float  # times the face's box that it sees


NETWORKS: Final = (
    LivenessNetwork(
        name="minifasnet_v2",
        builder="recognition.liveness.minifasnet.v2",
        file=_V2,
        around=2.7,
    ),
    LivenessNetwork(
        name="minifasnet_v1se",
        builder="recognition.liveness.minifasnet.v1se",
        file=_V1SE,
        around=4.0,
    ),
)


def has_liveness() -> bool:
    """Return whether both files are in `WEIGHTS_DIR`, and faces are looked for; they may still fail to
    load."""
    return looks_for_faces() and all(_path(network).is_file() for network in NETWORKS)


def liveness_problem() -> str | None:
    """Return why the files that are there cannot be used, as far as is known; None without any. Loads
    nothing."""
    if not (looks_for_faces() and any(_path(network).is_file() for network in NETWORKS)):
        return None
    if not has_liveness():
        return _missing().message
    try:
        failed = any(has_failed(network.name, _found(network)) for network in NETWORKS)
    except WeightsUnavailable:
        failed = True
    return _unusable().message if failed else None


def load_liveness() -> list[LoadedNetwork]:
    """Return the networks, loaded once a process and again after a file was replaced.

    Raise `LivenessUnavailable` if their files are missing or unusable.
    """
    if not has_liveness():
        raise _missing()
    try:
        return [
            load_once(network, partial(_found, network), partial(run_on_processor, agree=_agree))
            for network in NETWORKS
        ]
    except WeightsUnavailable as error:
        logger.warning("The liveness check cannot be used: %s", error)
        raise _unusable() from error


def liveness_of(picture: np.ndarray, faces: Sequence[Face]) -> list[float]:
    """Return the liveness (0 to 1) of faces in an H×W×3 uint8 RGB picture: how probable it is that each
    stands before the camera.

    Raise `LivenessUnavailable` if the networks' files are missing or unusable.
    """
    loaded = load_liveness()
    if not faces:
        return []
    with timed("liveness"):
        each = [
            _live(running.runtime, [surroundings(picture, face, network.around) for face in faces])
            for network, running in zip(NETWORKS, loaded, strict=True)
        ]
    return [float(mean) for mean in np.mean(each, axis=0)]


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


def _live(runtime: Runtime, seen: Sequence[np.ndarray]) -> np.ndarray:
    """Return the N probabilities of a face before the camera, of N×80×80×3 uint8 RGB."""
    batches = (np.stack(seen[start : start + _BATCH]) for start in range(0, len(seen), _BATCH))
    return np.concatenate([runtime.run(batch)[:, _LIVE] for batch in batches])


def _agree(given: np.ndarray, expected: np.ndarray) -> bool:
    return np.allclose(given, expected, rtol=0, atol=MOST_DIFFERENCE)


def _path(network: LivenessNetwork) -> Path:
    return get_settings().weights_dir / network.file


def _found(network: LivenessNetwork) -> WeightsFile:
    found = weights_file(_path(network))
    if found is None:  # deleted meanwhile
        raise WeightsUnavailable(network.file)
    return found


def _missing() -> LivenessUnavailable:
    if not looks_for_faces():
        return LivenessUnavailable(
            gettext(
                "This server takes every picture for a crop (DETECTOR=none), and the liveness of a face is "
                "seen by what is around it. Ask without it, or have the administrator set another detector."
            )
        )
    return LivenessUnavailable(
        gettext(
            "Not all files of the liveness check are on this server. Have the administrator run 'manage.py "
            "fetch_weights liveness', or ask without it."
        )
    )


def _unusable() -> LivenessUnavailable:
    return LivenessUnavailable(
        gettext(
            "The networks of the liveness check cannot be loaded: a file is damaged, of another network, or may "
            "not be read. Have the administrator run 'manage.py fetch_weights liveness', which puts whole ones in their "
            "place, or ask without it. The log names the file."
        )
    )
