"""Make the int8 file of a network: `python -m training.quantise mobilenetv3_large --pack pack`.

It lies beside the float32 weights that it is made from. NNCF measures the range of every layer's
values on some of the training crops. The last layer stays in float32, and is solved for what int8
changes before it. Nothing is trained.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import django
import numpy as np
from tqdm import tqdm

from recognition.networks import NETWORKS, FaceNetwork, WeightsFile, build
from recognition.networks.descriptor import (
    WeightsDescriptor,
    read_descriptor,
    write_descriptor,
)
from recognition.networks.int8 import SUFFIX, write_int8
from recognition.networks.registry import EMBEDDING_DIM
from recognition.networks.runtime import OpenVinoRuntime, convert_to_openvino, import_openvino
from recognition.networks.weights import DIGEST_LENGTH, file_hash
from recognition.threads import network_threads
from training.faces import Faces, open_pack
from training.last_layer import TOGETHER, Regression, last_layer, without_end

if TYPE_CHECKING:
    import openvino
    from torch import nn

ROOT = Path(__file__).resolve().parent.parent
# The places of convolutions that stay in float32, as they make a quarter of MobileNetV3's error, where they cost no
# time, and a sixth of ResNet-50's, where the first one takes a fifth of a batch's time in int8. Its last one makes none.
IN_FLOAT32 = {"mobilenetv3_large": (0, -1), "cosface_resnet50": (0,)}
RIDGE = 0.3  # of 0.0001 to 10, the one with the nearest embeddings of other training crops


def quantise(
    network: nn.Module, crops: np.ndarray, in_float32: Collection[int] = ()
) -> openvino.Model:
    """Return the network without its last layer, in int8 but for the convolutions in these places.

    `crops` (N×112×112×3 uint8 RGB) are those that it is fitted to. Weights take 7 of the 8 bits, so that
    the sums of a processor without VNNI do not overflow and all with AVX-512 give the same embeddings.
    """
    import_openvino()  # first, so that NNCF tells nobody about its use
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    model = convert_to_openvino(without_end(network))
    convolutions = [
        layer.get_friendly_name()
        for layer in model.get_ordered_ops()
        if layer.get_type_name() in ("Convolution", "GroupConvolution")
    ]
    return nncf.quantize(
        model,
        nncf.Dataset([crop[None] for crop in crops]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(crops),
        fast_bias_correction=False,  # the other errs by a third more in similarities of ResNet-50
        ignored_scope=nncf.IgnoredScope(names=[convolutions[place] for place in in_float32]),
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
    )


def with_last_layer(
    quantised: openvino.Model, network: nn.Module, crops: np.ndarray
) -> openvino.Model:
    """Return `quantised` with a last layer in float32: that of `network`, moved by ridge regression to
    where the embeddings of N×112×112×3 uint8 RGB crops are nearest to those of `network`."""
    openvino = import_openvino()
    quick, exact = (
        OpenVinoRuntime(model, threads=network_threads())
        for model in (quantised, convert_to_openvino(network))
    )
    present = last_layer(network)
    regression = Regression(len(present) - 1, EMBEDDING_DIM)
    for start in tqdm(range(0, len(crops), TOGETHER), desc="last layer"):
        part = np.ascontiguousarray(crops[start : start + TOGETHER])
        features = quick.run(part)
        regression.add(features, exact.run(part) - features @ present[:-1] - present[-1])
    solved = (present + regression.solve(RIDGE)).astype(np.float32)
    ops = openvino.opset13
    features = quantised.get_results()[0].input_value(0)
    embeddings = ops.add(ops.matmul(features, solved[:-1], False, False), solved[-1])
    return openvino.Model([embeddings], quantised.get_parameters())


def some_crops(faces: Faces, count: int, seed: int) -> np.ndarray:
    """Return `count` of the crops, drawn at random."""
    count = min(count, len(faces))
    places = np.random.default_rng(seed).choice(len(faces), count, replace=False)
    return np.array(faces.images[np.sort(places)])


def make_int8(network: FaceNetwork, source: Path, crops: np.ndarray, solved: np.ndarray) -> Path:
    """Write the int8 file and its descriptor, without thresholds, beside the weights; return its path.

    Crops are N×112×112×3 uint8 RGB: some for the ranges of the layers, more to solve the last one.
    """
    sha256 = file_hash(source)
    exact = build(network, source)
    model = with_last_layer(quantise(exact, crops, IN_FLOAT32.get(network.name, ())), exact, solved)
    target = source.with_name(f"{network.weights_stem}{SUFFIX}")
    write_int8(model, target, made_from=sha256)
    known = read_descriptor(WeightsFile(source, sha256[:DIGEST_LENGTH]))
    descriptor = WeightsDescriptor(
        sha256=file_hash(target),
        source=f"{source.name} ({sha256[:DIGEST_LENGTH]}) in int8 by NNCF {version('nncf')}",
        trained_on=known.trained_on if known else "",
        licence=known.licence if known else "",
    )
    write_descriptor(WeightsFile(target, ""), descriptor)
    return target


def main() -> None:
    """Run it from the command line."""
    options = _parser().parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faceproject.settings")
    django.setup()
    network = NETWORKS[options.model]
    source = options.weights or ROOT / "weights" / f"{network.weights_stem}.safetensors"
    faces = open_pack(options.pack)
    crops, solved = (
        some_crops(faces, count, options.seed) for count in (options.crops, options.solve)
    )
    target = make_int8(network, source, crops, solved)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB from {len(solved)} crops")
    print(
        f"Measure it: INT8_MODELS={network.name} script/manage evaluate HELD-OUT --aligned --save"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=NETWORKS)
    parser.add_argument("--pack", type=Path, required=True, help="of training.pack decode")
    parser.add_argument("--weights", type=Path, help="default: weights/STEM.safetensors")
    parser.add_argument("--crops", type=int, default=300, help="for the ranges of its layers (300)")
    parser.add_argument("--solve", type=int, default=12_000, help="for its last layer (12,000)")
    parser.add_argument("--seed", type=int, default=0, help="which they are")
    return parser


if __name__ == "__main__":
    main()
