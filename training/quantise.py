"""Make the int8 file of a network: `python -m training.quantise mobilenetv3_large --pack pack`.

It lies beside the float32 weights that it is made from. NNCF measures the range of every layer's
values on some of the training crops; nothing is trained.
"""

from __future__ import annotations

import argparse
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import numpy as np

from recognition.networks import KNOWN_NETWORKS, FaceNetwork, WeightsFile, build
from recognition.networks.descriptor import (
    WeightsDescriptor,
    full_hash,
    read_descriptor,
    write_descriptor,
)
from recognition.networks.int8 import SUFFIX, write_int8
from recognition.networks.runtime import convert_to_openvino, import_openvino
from recognition.networks.weights import DIGEST_LENGTH
from training.faces import Faces, open_pack

if TYPE_CHECKING:
    import openvino

ROOT = Path(__file__).resolve().parent.parent


def quantise(model: openvino.Model, crops: np.ndarray) -> Any:
    """Return the network in int8; `crops` (N×112×112×3 uint8 RGB) are those that it is fitted to.

    Weights take 7 of the 8 bits, so that the sums of a processor without VNNI do not overflow and
    all with AVX-512 give the same embeddings.
    """
    import_openvino()  # first, so that NNCF tells nobody about its use
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    return nncf.quantize(
        model,
        nncf.Dataset([crop[None] for crop in crops]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(crops),
        fast_bias_correction=False,  # the other errs by a third more in similarities of ResNet-50
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
    )


def some_crops(faces: Faces, count: int, seed: int) -> np.ndarray:
    """Return `count` of the crops, drawn at random."""
    count = min(count, len(faces))
    places = np.random.default_rng(seed).choice(len(faces), count, replace=False)
    return np.array(faces.images[np.sort(places)])


def make_int8(network: FaceNetwork, source: Path, crops: np.ndarray) -> Path:
    """Write the int8 file and its descriptor, without thresholds, beside the weights; return its
    path."""
    sha256 = full_hash(WeightsFile(source, ""))
    model = quantise(convert_to_openvino(build(network, source)), crops)
    target = source.with_name(f"{network.weights_stem}{SUFFIX}")
    write_int8(model, target, made_from=sha256)
    known = read_descriptor(WeightsFile(source, sha256[:DIGEST_LENGTH]))
    made = WeightsFile(target, "")
    descriptor = WeightsDescriptor(
        sha256=full_hash(made),
        source=f"{source.name} ({sha256[:DIGEST_LENGTH]}) in int8 by NNCF {version('nncf')}",
        trained_on=known.trained_on if known else "",
        licence=known.licence if known else "",
    )
    write_descriptor(made, descriptor)
    return target


def main() -> None:
    """Run it from the command line."""
    options = _parser().parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faceproject.settings")
    django.setup()
    network = KNOWN_NETWORKS[options.model]
    source = options.weights or ROOT / "weights" / f"{network.weights_stem}.safetensors"
    crops = some_crops(open_pack(options.pack), options.crops, options.seed)
    target = make_int8(network, source, crops)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB from {len(crops)} crops")
    print(
        f"Measure it: INT8_MODELS={network.name} script/manage evaluate HELD-OUT --aligned --save"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=KNOWN_NETWORKS)
    parser.add_argument("--pack", type=Path, required=True, help="of training.pack decode")
    parser.add_argument("--weights", type=Path, help="default: weights/STEM.safetensors")
    parser.add_argument("--crops", type=int, default=300, help="how many it is fitted to (300)")
    parser.add_argument("--seed", type=int, default=0, help="which they are")
    return parser


if __name__ == "__main__":
    main()
