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
        "Where the vectors are: a folder (embedded Milvus Lite, which belongs to one process) or the address of a Milvus server such as `http://host:19530`. A server is for several processes or very large galleries ([which, when](operations.md#the-vector-database)). After a change run `script/manage reindex`.",
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
        "How the nearest are found: `FLAT` compares with every vector and misses none; `SCANN`, which only a Milvus server has, compares with short codes of all, and exactly with the nearest: ten times quicker among a million, where it missed none in 20,000; `HNSW` walks a graph and misses some ([figures](operations.md#which-index)). `AUTO` is `SCANN` on a Milvus server and `FLAT` in the embedded database. Of a new collection: after a change run `script/manage reindex --rebuild`.",
    )
    milvus_hnsw_ef: int = setting(
        256,
        "HNSW: candidates looked at by a search; at once, no rebuild. More finds more and takes longer.",
        least=1,
        most=32_768,
    )
    milvus_memory_bytes: int = setting(
        1024 * MIB,
        "Embedded database with `FLAT`: megabytes that the vectors of the models in use may take in the server's memory, where searches are quickest; 205 for each 100,000 of one model. Those that do not fit are searched by Milvus Lite itself, about ten times slower ([figures](performance.md#search)); `/api/health` says which.",
        least=0,
        most=1_048_576 * MIB,
        unit=MIB,
        variable="MILVUS_MEMORY_MB",
    )
    default_model: str = setting(
        "mobilenetv3_large",
        "The model of requests that name none; `cosface_resnet50` is the other.",
        section="Networks",
    )
    extra_networks: tuple[str, ...] = setting(
        (),
        "Networks that do not come along: `edgeface_xs`. Fetch its weights first ([which](../weights/README.md)), measure them (`evaluate --save`), and run `script/manage reindex`.",
    )
    device: str = setting(
        "auto", "`auto` takes a CUDA GPU when there is one; `cpu`, `cuda`, `cuda:1` insist."
    )
    network_runtime: Literal["auto", "torch"] = setting(
        "auto",
        "What runs the networks on a processor: `auto` takes OpenVINO, which is [faster](performance.md#runtimes), where it gives the embeddings of torch, and torch otherwise; `torch` insists. `/api/health` says which it is. A GPU has torch always.",
    )
    int8_models: tuple[str, ...] = setting(
        (),
        "Models, with commas, that are computed in int8 instead of float32: by OpenVINO, on a processor, [1 to 5 times as fast, by model and processor](performance.md#int8). Both models bring their files along; [training](../training/README.md#int8) makes them for weights of your own. Embeddings and thresholds are others: after a change run `script/manage reindex`. Where int8 cannot run, or its file was made from other weights, the model answers 503 and `/api/health` says why; float32 never takes its place by itself.",
    )
    preload_models: tuple[str, ...] = setting(
        (),
        "Models, with commas, that the server loads at its start, and without which it is not ready; the others load at their first use. When unset, the default model is loaded at the start, and nobody waits for it.",
    )
    embed_batch_size: int = setting(
        256,
        "Faces that go through a network at once; lower it when a GPU runs out of memory. On a processor 8 are the most, as more are [no faster](performance.md#runtimes).",
        least=1,
        most=4_096,
    )
    max_waiting_faces: int = setting(
        1_000,
        "Faces that wait for the network at the same time. A request that brings more gets 503 and when to come again; imports and commands wait, and take half at the most.",
        least=1,
        most=1_000_000,
    )
    torch_threads: int = setting(
        0,
        "Processor threads of one forward pass, whatever runs it, and of OpenCV; `0`: one for each core that the process may use.",
        least=0,
        most=1_024,
    )
    flip_tta: bool = setting(
        False,
        "`1`: an embedding is the mean of those of the face and of its mirror image, at twice the network's time. After a change run `script/manage reindex`, since the two kinds of vectors are never compared, and measure the thresholds anew (`evaluate --save`).",
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
        "Width × height of all pictures that are decoded at the same time; further requests wait until there is room. A pixel takes about 10 bytes of memory while it is decoded.",
        least=112 * 112,
        most=20_000_000_000,
    )
    detector: str = setting(
        "auto",
        "What finds faces: `auto` takes YuNet when its file is in `WEIGHTS_DIR` at the start (`fetch_weights yunet`), MTCNN otherwise; `/api/health` says which and why. `yunet` and `mtcnn` insist ([what a change means](operations.md#the-detector)). `retinaface` needs `pip install -r requirements-retinaface.txt` and fetches its weights at the first use, into `~/.uniface/models` or `UNIFACE_CACHE_DIR`; its scores run lower, so set `DETECTION_MIN_SCORE=0.5` with it. `none` finds none: every picture is taken for a crop. The dotted path of a class takes your own, which implements [`recognition/detection/base.py`](../recognition/detection/base.py).",
    )
    detection_max_side: int = setting(
        1600,
        "Larger pictures are scaled down to this to find faces (the crop is still cut from the original): larger finds smaller faces, slower. At 1600, faces from 40 pixels on are found in a photo of 12 megapixels; at 1024 from 60 on, in 0.4 of the time.",
        least=112,
        most=20_000,
    )
    detection_min_score: float | None = setting(
        None,
        "Faces that the detector is less sure of are ignored (0 to 1). When unset it is what was measured for the detector: 0.8 for YuNet, 0.9 for the others; their scores do not compare.",
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
        'A picture without a face, in calls that only embed or search: `embed` takes the whole picture and answers `"face_detected": false`, without any verdict; `error` refuses it with 422. It is never enrolled.',
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
