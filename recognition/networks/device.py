"""The device that the networks run on. Without a GPU driver nothing here imports torch."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Final

from recognition.exceptions import WeightsUnavailable
from recognition.sentences import gettext

CPU: Final = "cpu"
NVIDIA_TRACES: Final = (Path("/proc/driver/nvidia"), Path("/dev/nvidiactl"), Path("/dev/dxg"))


def has_nvidia_driver() -> bool:
    """Return whether an NVIDIA driver is installed, without the slow import of torch."""
    return bool(shutil.which("nvidia-smi")) or any(path.exists() for path in NVIDIA_TRACES)


def choose_device(wanted: str) -> str:
    """Return the device to compute on by its torch name. `auto` selects CUDA when present.

    Raise `WeightsUnavailable` if another wanted device is absent.
    """
    if wanted == CPU:
        return CPU
    if wanted == "auto":
        return _fastest_device()
    import torch

    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise WeightsUnavailable(
            gettext(
                "DEVICE=%(device)s is not to be had on this server. Set DEVICE to 'auto' or 'cpu' and "
                "restart; 'manage.py check' says what is wrong."
            )
            % {"device": wanted}
        ) from error
    return str(device)


@cache  # every embedding asks, and a look for the driver takes as long as decoding a crop
def _fastest_device() -> str:
    if not has_nvidia_driver():
        return CPU
    import torch

    return "cuda" if torch.cuda.is_available() else CPU
