"""A joint teacher of two published networks: EdgeFace-XS and Open Model Zoo's
reidentification-0095.

Neither is bundled. Each is trained on far more faces than we have, and their errors differ, so
together they are better than either (training/README.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from recognition.networks.edgeface import EdgeNeXt
from recognition.networks.registry import EMBEDDING_DIM
from recognition.networks.runtime import convert_to_openvino, import_openvino
from training.openvino_ir import OpenVinoNetwork

JOINT_DIM = 256  # principal directions kept of both together


def edgeface(weights: Path) -> nn.Module:
    """Return EdgeFace-XS with full matrices (George et al. 2023, arXiv:2307.01838), from
    `.safetensors`."""
    network = EdgeNeXt(EMBEDDING_DIM, rank_share=None)
    network.load_state_dict(load_file(weights), strict=True)
    return network


class Reidentification(nn.Module):
    """Open Model Zoo's face-reidentification-retail-0095, from its `.xml` and `.bin`."""

    def __init__(self, xml: Path) -> None:
        super().__init__()
        self.network = OpenVinoNetwork(xml)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bgr = (images.flip(1) + 1) * 127.5
        narrow = functional.interpolate(
            bgr[..., 8:104], size=(128, 128), mode="bilinear", align_corners=False
        )
        return self.network(narrow).flatten(1)


class ProcessorMember(nn.Module):
    """A member that OpenVINO computes on the processor.

    With bfloat16 matrix units that is six times as fast as PyTorch, and the vectors agree to a cosine
    of 0.9997; without them it computes in float32.
    """

    def __init__(self, member: nn.Module) -> None:
        super().__init__()
        self.member = member.eval()
        model = convert_to_openvino(self.member)
        settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "ENABLE_CPU_PINNING": False}
        self.request = (
            import_openvino().compile_model(model, "CPU", settings).create_infer_request()
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        crops = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous()
        self.request.infer([crops.numpy()])
        return torch.from_numpy(np.array(self.request.get_output_tensor(0).data))


class JointTeacher(nn.Module):
    """Both networks' centred vectors, concatenated and projected on the 256 principal directions.

    It maps N×3×112×112 RGB in [-1, 1] to N×256 float32 of length 1. Call `fit` first.
    """

    def __init__(self, members: list[nn.Module], *, compiled: bool = False) -> None:
        super().__init__()
        self.members = nn.ModuleList(members).eval().requires_grad_(False)
        self.asked: list[Callable[[torch.Tensor], torch.Tensor]] = list(self.members)
        if compiled:
            self.asked = [torch.compile(member, dynamic=False) for member in members]
        self.means: list[torch.Tensor] = []
        self.turn = torch.empty(0)

    @torch.no_grad()
    def _outputs(
        self,
        members: Iterable[Callable[[torch.Tensor], torch.Tensor]],
        images: torch.Tensor,
        mirrored: bool,
    ) -> list[torch.Tensor]:
        """Return each member's N×D vectors; with `mirrored`, summed over crop and mirror image."""
        views = [images, images.flip(3)] if mirrored else [images]
        views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            given = [[member(view).float() for view in views] for member in members]
        return [sum(functional.normalize(vectors) for vectors in member) for member in given]

    @torch.no_grad()
    def fit(self, crops: np.ndarray, batch: int = 1024) -> torch.Tensor:
        """Compute means and principal directions from N×112×112×3 uint8 RGB crops.

        Return the teacher's vectors of these crops, mirror images included: N×256 of length 1.
        """
        device = next(self.parameters()).device
        rows = []
        for start in range(0, len(crops), batch):
            part = torch.from_numpy(np.array(crops[start : start + batch])).to(device)
            rows.append(
                self._outputs(self.members, part.permute(0, 3, 1, 2) / 127.5 - 1, mirrored=True)
            )
        outputs = [torch.cat(member) for member in zip(*rows, strict=True)]
        self.means = [functional.normalize(member).mean(0) for member in outputs]
        joint = self._join(outputs)
        vectors = torch.linalg.eigh((joint.T @ joint).double()).eigenvectors
        self.turn = vectors.flip(1)[:, :JOINT_DIM].float()
        return functional.normalize(joint @ self.turn)

    def _join(self, outputs: list[torch.Tensor]) -> torch.Tensor:
        parts = [
            functional.normalize(functional.normalize(member) - mean)
            for member, mean in zip(outputs, self.means, strict=True)
        ]
        return functional.normalize(torch.cat(parts, 1))

    @torch.no_grad()
    def forward(self, images: torch.Tensor, mirrored: bool = False) -> torch.Tensor:
        """Return the teacher's vectors; `mirrored` includes the mirror image, at twice the cost."""
        return functional.normalize(
            self._join(self._outputs(self.asked, images, mirrored)) @ self.turn
        )
