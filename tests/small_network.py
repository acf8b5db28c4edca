"""A network that is converted in a moment: what is kept of one, and when, is the same for each."""

from __future__ import annotations

import torch


class Small(torch.nn.Module):
    """A network whose conversion takes a moment: what is kept of one, and when, is the same for each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(48, 512)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images[:, :, ::28, ::28].flatten(1))
