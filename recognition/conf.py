"""The settings of recognition: defaults, meanings, limits, and typed access to
`settings.RECOGNITION`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

from recognition.setting import setting

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognitionSettings:
    """The settings; each field is the environment variable of the same name in upper case."""

    weights_dir: Path = setting(
        Path("weights"),
        "Where the networks' weights are looked for; see [`weights/README.md`](../weights/README.md).",
        section="Where things are kept",
    )
    milvus_uri: str = setting(
        "data/milvus_face.db",
        "Where the vectors are: a folder (embedded Milvus Lite, which belongs to one process), or the address of a Milvus server such as `http://host:19530` ([which, when](operations.md#the-vector-database)). After a change run `script/manage reindex`.",
        shown="DATA_DIR/milvus_face.db",
    )
    milvus_token: str = setting("", "`user:password` or token of a Milvus server.", is_secret=True)
    milvus_timeout: float = setting(
        10.0,
        "Seconds that a call to a Milvus server may take before it counts as down.",
        least=0.1,
        most=3600,
    )
    milvus_index: Literal["AUTO", "FLAT", "SCANN", "HNSW"] = setting(
        "AUTO",
        "How the nearest vectors are found: `AUTO`, `FLAT`, `SCANN` or `HNSW`. `FLAT` compares with every vector and misses none. `SCANN`, on a Milvus server only, is ten times quicker among a million and missed none in 20,000. `HNSW` walks a graph and misses some. `AUTO` is `SCANN` on a Milvus server, `FLAT` otherwise ([figures](operations.md#which-index)). After a change run `script/manage reindex --rebuild`.",
    )
    milvus_hnsw_ef: int = setting(
        256,
        "HNSW: how many candidates a search looks at. More finds more and takes longer; no rebuild is needed.",
        least=1,
        most=32_768,
    )
    milvus_memory_bytes: int = setting(
        1024 * MIB,
        "Embedded database with `FLAT`: megabytes of memory for the vectors of the models in use, 205 for each 100,000 of a model. Vectors that do not fit are searched about ten times more slowly ([figures](performance.md#search)); `/api/health` says which.",
        least=0,
        most=1_048_576 * MIB,
        unit=MIB,
        variable="MILVUS_MEMORY_MB",
    )
    default_model: str = setting(
        "mobilenetv3_large",
        "Model of requests that name none; `cosface_resnet50` is the other.",
        section="Networks",
    )
    extra_networks: tuple[str, ...] = setting(
        (),
        "Networks that are not bundled: `edgeface_xs`. Fetch its weights first ([which](../weights/README.md)), measure them (`evaluate --save`), and run `script/manage reindex`.",
    )
    device: str = setting(
        "auto", "`auto` takes a CUDA GPU when there is one; `cpu`, `cuda`, `cuda:1` insist."
    )
    network_runtime: Literal["auto", "torch"] = setting(
        "auto",
        "What runs the networks on a processor: `auto` or `torch`. `auto` takes OpenVINO, which is [faster](performance.md#runtimes), where it gives the embeddings of torch; `torch` insists on torch. A GPU always runs torch. `/api/health` says which it is.",
    )
    int8_models: tuple[str, ...] = setting(
        (),
        "Models, with commas, that are computed in int8 instead of float32, by OpenVINO on a processor: [1 to 5 times as fast](performance.md#int8). The files for both models are bundled; for weights of your own [make them](../training/README.md#int8). Embeddings and thresholds change: run `script/manage reindex` afterwards. Where int8 cannot run, or its file belongs to other weights, the model answers 503, and `/api/health` says why.",
    )
    preload_models: tuple[str, ...] = setting(
        (),
        "Models, with commas, that the server loads at its start, and without which it is not ready. Others load at their first use. Unset: the default model is loaded at the start, but nobody waits for it.",
    )
    embed_batch_size: int = setting(
        256,
        "Faces that go through a network at once. Lower it when a GPU runs out of memory. A processor takes 8 at most, as more are [no faster](performance.md#runtimes).",
        least=1,
        most=4_096,
    )
    max_waiting_faces: int = setting(
        1_000,
        "Faces that may wait for the network. A request that brings more gets 503 with `Retry-After`; imports and commands wait, and take half of it at most.",
        least=1,
        most=1_000_000,
    )
    torch_threads: int = setting(
        0,
        "Processor threads of one forward pass and of OpenCV; `0`: one for each core that the process may use.",
        least=0,
        most=1_024,
    )
    flip_tta: bool = setting(
        False,
        "`1`: an embedding is the mean of those of the face and of its mirror image, in twice the time. After a change run `script/manage reindex` and measure the thresholds (`evaluate --save`).",
    )
    max_request_bytes: int = setting(
        50 * MIB,
        "Largest request; a larger one gets 413.",
        section="Pictures and faces",
        least=MIB,
        most=4_096 * MIB,
        unit=MIB,
        variable="MAX_REQUEST_MB",
    )
    max_batch_size: int = setting(100, "Most pictures in one request.", least=1, most=1_000)
    max_image_pixels: int = setting(
        50_000_000,
        "Width × height of the largest picture, known from its header before it is decoded.",
        least=112 * 112,
        most=2_000_000_000,
    )
    max_decoded_pixels: int = setting(
        60_000_000,
        "Width × height of all pictures that are decoded at the same time; further requests wait. A pixel takes about 10 bytes of memory meanwhile.",
        least=112 * 112,
        most=20_000_000_000,
    )
    detector: str = setting(
        "auto",
        "What finds faces: `auto`, `yunet`, `mtcnn`, `retinaface`, `none`, or the dotted path of a class. `auto` takes YuNet when its file is in `WEIGHTS_DIR` at the start (`fetch_weights yunet`), MTCNN otherwise; `/api/health` says which and why. `yunet` and `mtcnn` insist ([what a change means](operations.md#the-detector)). `retinaface` needs `pip install -r requirements-retinaface.txt`, fetches its weights at the first use into `~/.uniface/models` or `UNIFACE_CACHE_DIR`, and has lower scores: set `DETECTION_MIN_SCORE=0.5` with it. `none` takes every picture for a crop. A class of your own implements [`recognition/detection/base.py`](../recognition/detection/base.py).",
    )
    detection_max_side: int = setting(
        1600,
        "Longest side, in pixels, at which faces are looked for. Larger pictures are scaled down to it; the crop is still cut from the original. At 1600, faces from 40 pixels on are found in a photo of 12 megapixels; at 1024 from 60 on, in 0.4 of the time.",
        least=112,
        most=20_000,
    )
    detection_min_score: float | None = setting(
        None,
        "Faces of which the detector is less sure are ignored (0 to 1). Unset: what was measured for the detector, 0.8 for YuNet and 0.9 for the others. Scores of two detectors do not compare.",
        least=0,
        most=1,
    )
    detection_min_size: int = setting(
        0,
        "Faces whose box has a shorter side, in pixels of the picture, are ignored.",
        least=0,
        most=10_000,
    )
    no_face_policy: Literal["embed", "error"] = setting(
        "embed",
        'What becomes of a picture without a face in calls that only embed or search: `embed` or `error`. `embed` takes the whole picture and answers `"face_detected": false`, without a verdict; `error` refuses it with 422. Such a picture is never enrolled.',
    )


@lru_cache(maxsize=1)
def get_settings() -> RecognitionSettings:
    """Return the current settings. They are cached until a test overrides `RECOGNITION`."""
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
