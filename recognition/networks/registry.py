"""The registry of all networks. A new network needs one file with a builder, and one entry here.

`edgeface.py` is an example of a network without bundled weights (`is_extra`). Entries name their
builder by dotted path, so that listing the networks does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from recognition.conf import get_settings
from recognition.exceptions import UnknownModel

EMBEDDING_DIM: Final = 512  # length of an embedding, in every network and in the collection
CROP_SIZE: Final = 112  # side of the aligned crop that every network reads, in pixels


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A weights file that somebody else publishes; `name` is the publisher."""

    name: str
    url: str
    licence: str
    gives: str | Promise
    costs: str | Promise
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network that reads N×3×side×side float32 RGB, (value/255 - 0.5) / 0.5, and returns N×outputs
    float32."""

    name: str
    builder: str  # dotted path of a function that returns the torch module, untrained
    side: int = CROP_SIZE
    outputs: int = EMBEDDING_DIM


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceNetwork(Network):
    """A network that computes embeddings, and its weights files."""

    description: str | Promise
    weights_stem: str  # <stem>.ckpt is the user's file, <stem>.safetensors the bundled one
    paper: str  # URL of the paper about the architecture and its loss
    is_extra: bool = False  # no bundled weights; used only if `EXTRA_NETWORKS` names it


KNOWN_NETWORKS: Final[dict[str, FaceNetwork]] = {
    network.name: network
    for network in (
        FaceNetwork(
            name="mobilenetv3_large",
            description=_("MobileNetV3-Large: small and fast, for processors without a GPU"),
            builder="recognition.networks.mobilenetv3.mobilenetv3_large",
            weights_stem="mobilenetv3_large",
            paper="https://arxiv.org/abs/1905.02244",
        ),
        FaceNetwork(
            name="cosface_resnet50",
            description=_("ResNet-50 trained with the CosFace loss: larger and slower"),
            builder="recognition.networks.resnet.cosface_resnet50",
            weights_stem="resnet50_cosface",
            paper="https://arxiv.org/abs/1801.09414",
        ),
        FaceNetwork(
            name="edgeface_xs",
            description=_("EdgeFace-XS: the smallest, by Idiap; to be fetched"),
            builder="recognition.networks.edgeface.edgeface_xs",
            weights_stem="edgeface_xs",
            paper="https://arxiv.org/abs/2307.01838",
            is_extra=True,
        ),
    )
}

# The networks in use. Training imports this module without Django settings.
_EXTRA = get_settings().extra_networks if settings.configured else ()
NETWORKS: Final[dict[str, FaceNetwork]] = {
    name: network
    for name, network in KNOWN_NETWORKS.items()
    if not network.is_extra or name in _EXTRA
}


def get_network(name: str) -> FaceNetwork:
    """Return the network with this name. Raise `UnknownModel`, which lists the known names."""
    if network := NETWORKS.get(name):
        return network
    message = gettext("There is no model '%(name)s'. Known models: %(known)s.") % {
        "name": name[:100],
        "known": ", ".join(NETWORKS),
    }
    if close := get_close_matches(name, NETWORKS, n=1):
        message += " " + gettext("Did you mean '%(close)s'?") % {"close": close[0]}
    raise UnknownModel(message)
