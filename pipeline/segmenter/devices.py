"""Where the networks run: the CPU (OpenVINO) or a CUDA device (torch)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.types import WantedDevice

Device = Literal["cpu", "cuda"]


def choose_device(wanted: WantedDevice) -> Device:
    """The device to use; "auto" takes CUDA where it can be used and the CPU elsewhere.

    torch is imported (seconds) only where its version leaves open whether CUDA is there. Raises
    `ModelError` if "cuda" is wanted and cannot be used.
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
    """What keeps CUDA from being used and how to change that; None if nothing does."""
    try:
        found = version("torch")
    except PackageNotFoundError:
        return "torch is not installed (pip install 'maskstream[train]' with a CUDA build of torch)"
    if found.endswith("+cpu"):
        return f"torch {found} is built for the CPU alone (install a CUDA build of torch)"
    import torch

    if torch.cuda.is_available():
        return None
    built_for = torch.version.cuda or "no version of CUDA"
    return f"torch {found}, built for {built_for}, finds no CUDA device (check driver and GPU)"
