"""Load checkpoints safely: only tensors, no pickled code (torch).

Files are read by `torch.load(weights_only=True)` or safetensors. A file with a pickled module, such
as TinySAM's `tinysam_w8a8.pth`, could run any code and is refused.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn

from maskstream.pipeline.errors import ModelError

NORMALIZATION_KEYS = frozenset({"pixel_mean", "pixel_std"})
"""Constants that some checkpoints have among the weights; here the architecture has them."""

_WRAPPERS = ("state_dict", "model")
_NAMED_KEYS = 4
_PACKED = (".pt", ".pth")  # files of torch in an archive; their own members have other suffixes


def load_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file of torch or safetensors, or a zip of one, onto the CPU.

    The format is detected from the content, not from the file's name. A state dict inside
    `{"state_dict": ...}` or `{"model": ...}` is unwrapped.

    Raises `ModelError` if the file is missing, damaged, or contains anything but tensors.
    """
    if not path.is_file():
        raise ModelError(f"There is no checkpoint file at {path}.")
    state = _load_safetensors(path) if _is_safetensors(path) else _load_torch(path)
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise ModelError(f"{path} holds no state dict (tensors by name).")
    others = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ModelError(f"{path} is not a state dict: {_listed(others)} is not a tensor.")
    return {str(key): value for key, value in state.items()}


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of a state dict's tensors by key, without `NORMALIZATION_KEYS`."""
    return {k: tuple(v.shape) for k, v in state.items() if k not in NORMALIZATION_KEYS}


def load_into(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict whose keys and shapes match the model exactly.

    `NORMALIZATION_KEYS` are left out.

    Raises `ModelError` with the first keys that are missing, unknown or of another shape; the model
    is then unchanged.
    """
    given = {key: value for key, value in state.items() if key not in NORMALIZATION_KEYS}
    own = model.state_dict()
    problems = {
        "missing": [key for key in own if key not in given],
        "unknown": [key for key in given if key not in own],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(value.shape)}"
            for key, value in own.items()
            if key in given and given[key].shape != value.shape
        ],
    }
    found = [f"{what}: {_listed(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise ModelError(f"The checkpoint does not match the network; {'; '.join(found)}.")
    model.load_state_dict(given)


def _listed(keys: list[str]) -> str:
    shown, rest = ", ".join(keys[:_NAMED_KEYS]), len(keys) - _NAMED_KEYS
    return f"{shown} and {rest} more" if rest > 0 else shown


def _head(path: Path) -> bytes:
    """The first nine bytes, which identify the format."""
    try:
        with path.open("rb") as file:
            return file.read(9)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}).") from error


def _is_safetensors(path: Path) -> bool:
    """Whether the file starts like safetensors: eight bytes of length, then a JSON object."""
    head = _head(path)
    return head[8:] == b"{" and not head.startswith(b"PK")


def _is_pickled(path: Path) -> bool:
    """Whether the file may have been written by any version of torch."""
    return zipfile.is_zipfile(path) or _head(path).startswith(b"\x80")


def _unpacked(path: Path) -> Path | BytesIO:
    """The one file of torch in a zip archive; otherwise the path itself."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(_PACKED)]
        names = [name for name in names if not Path(name).name.startswith(".")]
        return BytesIO(archive.read(names[0])) if len(names) == 1 else path


def _load_safetensors(path: Path) -> object:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ModelError(
            f"{path} is a safetensors file; install the package safetensors to read it."
        ) from None
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged or not a checkpoint ({error}).") from error


def _load_torch(path: Path) -> object:
    try:
        return torch.load(_unpacked(path), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for other files
        if isinstance(error, pickle.UnpicklingError) and _is_pickled(path):
            raise ModelError(
                f"{path} holds Python objects, such as a whole module, and not only tensors. Such "
                "a file can run any code when it is opened, so only tensors are loaded; ask for "
                "the state_dict file instead."
            ) from error
        raise ModelError(
            f"{path} is damaged or not a checkpoint; if it should be one, fetch it again."
        ) from error
