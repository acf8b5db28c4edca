"""The networks that compute embeddings from aligned faces, and how they are loaded."""

from recognition.networks.loader import (
    LoadedNetwork,
    build,
    is_unconverted,
    load_network,
    loaded_names,
)
from recognition.networks.registry import (
    KNOWN_NETWORKS,
    NETWORKS,
    FaceNetwork,
    PublishedWeights,
    get_network,
)
from recognition.networks.weights import (
    WeightsFile,
    find_weights,
    has_weights,
    usable_names,
)

__all__ = [
    "KNOWN_NETWORKS",
    "NETWORKS",
    "FaceNetwork",
    "LoadedNetwork",
    "PublishedWeights",
    "WeightsFile",
    "build",
    "find_weights",
    "get_network",
    "has_weights",
    "is_unconverted",
    "load_network",
    "loaded_names",
    "usable_names",
]
