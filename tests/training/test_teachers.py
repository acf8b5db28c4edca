"""The joint teacher combines its members, and an OpenVINO model gives the results of PyTorch."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from recognition.networks.edgeface import EdgeNeXt
from training.openvino_ir import OpenVinoNetwork
from training.teachers import JointTeacher, ProcessorMember, edgeface


class Projection(nn.Module):
    """A member: one random projection of the picture reduced to 4×4 colours."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.matrix = nn.Parameter(torch.randn(48, 300, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(images, 28).flatten(1) @ self.matrix


@pytest.fixture
def crops():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (30, 4, 4, 3), np.uint8)
    return small.repeat(28, 1).repeat(28, 2)


def test_the_joint_direction_keeps_the_mean_cosine_of_both(crops):
    members = [Projection(1), Projection(2)]
    teacher = JointTeacher(members)
    joint = teacher.fit(crops, batch=7)
    assert joint.shape == (30, 256)
    images = torch.from_numpy(crops).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(teacher(images, mirrored=True), joint, rtol=1e-3, atol=1e-3)
    cosines = []
    for member in members:
        views = [functional.normalize(member(view)) for view in (images, images.flip(3))]
        mean = functional.normalize(views[0] + views[1])
        centred = functional.normalize(mean - mean.mean(0))
        cosines.append(centred @ centred.T)
    torch.testing.assert_close(joint @ joint.T, (cosines[0] + cosines[1]) / 2, rtol=1e-3, atol=2e-3)


def test_a_single_view_is_near_the_mirrored_mean(crops):
    teacher = JointTeacher([Projection(1), Projection(2)])
    joint = teacher.fit(crops)
    images = torch.from_numpy(crops).permute(0, 3, 1, 2) / 127.5 - 1
    own = (teacher(images) * joint).sum(1)
    other = (teacher(images) @ joint.T).mean()
    assert own.min() > 0.3 and own.mean() > other + 0.4


def test_a_member_on_the_processor_gives_what_pytorch_gives(crops):
    member = Projection(3)
    images = torch.from_numpy(crops).permute(0, 3, 1, 2) / 127.5 - 1
    given, expected = ProcessorMember(member)(images), member(images)
    assert functional.cosine_similarity(given, expected).min() > 0.999
    assert torch.equal(ProcessorMember(member)(images[:7]), given[:7])


class Writer:
    """Write an OpenVINO model layer by layer."""

    def __init__(self) -> None:
        self.layers, self.edges, self.content = [], [], b""

    def add(self, kind: str, inputs=(), **data) -> int:
        number = len(self.layers)
        words = "".join(f' {key}="{value}"' for key, value in data.items())
        self.layers.append(f'<layer id="{number}" type="{kind}"><data{words}/></layer>')
        for port, source in enumerate(inputs):
            edge = (
                f'<edge from-layer="{source}" from-port="9" to-layer="{number}" to-port="{port}"/>'
            )
            self.edges.append(edge)
        return number

    def constant(self, values: torch.Tensor) -> int:
        content = values.numpy().astype(np.float16).tobytes()
        shape = ", ".join(str(side) for side in values.shape)
        place = {"offset": len(self.content), "size": len(content)}
        self.content += content
        return self.add("Convert", [self.add("Const", element_type="f16", shape=shape, **place)])

    def write(self, path) -> None:
        path.with_suffix(".bin").write_bytes(self.content)
        parts = "".join(self.layers), "".join(self.edges)
        path.write_text("<net><layers>{}</layers><edges>{}</edges></net>".format(*parts))


def test_an_openvino_model_computes_what_it_says(tmp_path):
    torch.manual_seed(0)
    weight, alone = (
        torch.randn(4, 3, 3, 3).half().float(),
        torch.randn(4, 1, 1, 3, 3).half().float(),
    )
    bias, slope = torch.randn(1, 4, 1, 1).half().float(), torch.tensor([0.25])
    model = Writer()
    x = model.add("Parameter")
    window = {"strides": "2, 2", "pads_begin": "1, 1", "pads_end": "1, 1", "dilations": "1, 1"}
    y = model.add("Convolution", [x, model.constant(weight)], **window)
    y = model.add("Add", [y, model.constant(bias)])
    y = model.add("PReLU", [y, model.constant(slope)])
    window["strides"] = "1, 1"
    z = model.add("GroupConvolution", [y, model.constant(alone)], **window)
    z = model.add("AvgPool", [z], kernel="8, 8", strides="8, 8")
    z = model.add("Multiply", [y, model.add("Sigmoid", [z])])
    model.add("Result", [z])
    model.write(tmp_path / "model.xml")
    images = torch.randn(2, 3, 16, 16)
    first = functional.conv2d(images, weight, stride=2, padding=1) + bias
    first = functional.prelu(first, slope)
    gate = functional.conv2d(first, alone[:, 0], padding=1, groups=4).mean((2, 3), keepdim=True)
    torch.testing.assert_close(
        OpenVinoNetwork(tmp_path / "model.xml")(images), first * gate.sigmoid()
    )


def test_an_unknown_operation_is_named(tmp_path):
    model = Writer()
    model.add("Result", [model.add("Gather", [model.add("Parameter")])])
    model.write(tmp_path / "model.xml")
    with pytest.raises(SystemExit, match=r"model.xml needs the operation Gather; known are Add"):
        OpenVinoNetwork(tmp_path / "model.xml")


def test_edgeface_loads_with_whole_matrices(tmp_path):
    save_file(EdgeNeXt(512, rank_share=None).state_dict(), tmp_path / "edgeface_xs.safetensors")
    teacher = edgeface(tmp_path / "edgeface_xs.safetensors").eval()
    with torch.inference_mode():
        assert teacher(torch.zeros(1, 3, 112, 112)).shape == (1, 512)
