"""Choose the inference device: the CPU (OpenVINO) or a CUDA device (torch)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.types import WantedDevice

Device = Literal["cpu", "cuda"]


def choose_device(wanted: WantedDevice) -> Device:
    """The device to use; "auto" is CUDA where it works, else the CPU.

    torch is imported (seconds) only if its version does not rule out CUDA. Raises `ModelError` if
    "cuda" is requested and cannot be used.
    """
    if wanted == "cpu":
        return "cpu"
    obstacle = _obstacle_to_cuda()
    if obstacle is None:
        return "cuda"
    if wanted == "auto":
        return "cpu"
    raise ModelError(f"device cuda cannot be used: {obstacle}")


def _obstacle_to_cuda() -> str | None:
    """Why CUDA cannot be used and how to change that; None if it can."""
    try:
        found = version("torch")
    except PackageNotFoundError:
        return "torch is not installed (pip install 'maskstream[train]' with a CUDA build of torch)"
    if found.endswith("+cpu"):
        return f"torch {found} is built for the CPU only (install a CUDA build of torch)"
    import torch

    if torch.cuda.is_available():
        return None
    built_for = torch.version.cuda or "no version of CUDA"
    return f"torch {found}, built for {built_for}, finds no CUDA device (check driver and GPU)"
