"""One typed, frozen view of `settings.RECOGNITION`; the only place that knows the defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognitionSettings:
    """What can be set; every field is an environment variable of the same name in capitals.

    What each means: `faceproject/configuration.py`.
    """

    # Networks
    weights_dir: Path = field(default_factory=lambda: Path("weights"))
    default_model: str = "mobilenetv3_large"
    extra_networks: tuple[str, ...] = ()  # known ones whose weights do not come along
    device: str = "auto"  # auto, cpu, cuda, cuda:N
    preload_models: tuple[str, ...] = ()
    embed_batch_size: int = 32  # crops a forward pass
    torch_threads: int = 0  # 0: torch decides
    flip_tta: bool = False  # the mean of a face's embedding and its mirror image's

    # Pictures
    max_image_pixels: int = 50_000_000
    max_decoded_pixels: int = 60_000_000  # of all requests together
    min_image_side: int = 16  # pixels
    max_batch_size: int = 100  # pictures a request
    max_request_bytes: int = 50 * MIB

    # Faces
    detector: str = "recognition.detection.mtcnn.MtcnnDetector"
    detection_max_side: int = 1600  # pixels; larger pictures are scaled down to detect
    detection_min_score: float = 0.9
    detection_min_size: int = 0  # pixels of the picture: the shorter side of a face's box
    no_face_policy: str = "embed"  # embed: the whole picture as a crop; error: refuse

    # Vectors
    milvus_uri: str = "data/milvus_face.db"
    milvus_token: str = ""
    milvus_timeout: float = 10.0  # seconds a call to a server may take
    milvus_index: str = "FLAT"  # FLAT: exact; HNSW: a graph. Of a new collection
    milvus_hnsw_m: int = 16  # neighbours of a vector in the graph
    milvus_hnsw_ef_construction: int = 200  # candidates looked at to place a vector
    milvus_hnsw_ef: int = 256  # candidates looked at by a search


@lru_cache(maxsize=1)
def get_settings() -> RecognitionSettings:
    """The settings in force; built once, rebuilt when a test overrides `RECOGNITION`."""
    given: dict[str, Any] = {key.lower(): value for key, value in settings.RECOGNITION.items()}
    known = {item.name for item in fields(RecognitionSettings)}
    if unknown := sorted(set(given) - known):
        raise ImproperlyConfigured(
            f"Unknown key in RECOGNITION: {', '.join(unknown)}. Known keys: {', '.join(sorted(known))}."
        )
    return RecognitionSettings(**given)


@receiver(setting_changed)
def _forget_settings(*, setting: str, **kwargs: object) -> None:
    if setting == "RECOGNITION":
        get_settings.cache_clear()
