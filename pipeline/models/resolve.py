"""Resolve a model's name to a model folder: embedded, given, cached, or quantized now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.models.find import (
    content_hash,
    find_checkpoint,
    find_model,
    names_checkpoint,
)
from maskstream.pipeline.types import RgbImage
from maskstream.pipeline.weights.cache import cache_folder

CALIBRATION_IMAGES = 32
METHOD = "nncf"  # takes about half the time, which the first user waits for


def resolve_model(
    name: str, images: Callable[[int], Sequence[RgbImage]], report: Callable[[str], None]
) -> Path:
    """Folder of a model, given as embedded name, folder, published name or checkpoint file.

    A published model or a checkpoint is quantized on first use, on `images(count)` of the user's
    own video, and cached by the checkpoint's content. Raises `ModelError`, also when quantizing is
    needed and the extra `train` is not installed.
    """
    if not names_checkpoint(name):
        return find_model(name)
    checkpoint, architecture = find_checkpoint(name)
    folder = cache_folder("models", f"{Path(name).stem}-{content_hash(checkpoint)}")
    if (folder / "model.yaml").is_file():
        return folder
    require_training_extra(f"quantizing {name} on first use")
    from maskstream.pipeline.models.checkpoint import load_network
    from maskstream.pipeline.quantization.gate import Gate
    from maskstream.pipeline.quantization.quantize import quantize, write_folder

    model = load_network(checkpoint, architecture)
    report(
        f"first use of {name}: quantizing it on up to {CALIBRATION_IMAGES} frames; minutes, once"
    )
    try:
        made = quantize(
            model,
            images(CALIBRATION_IMAGES),
            method=METHOD,
            gate=Gate(),
            source=checkpoint.name,
            report=report,
        )
    except KeyboardInterrupt:
        report(f"stopped; nothing of {name} is kept, its next use starts over")
        raise
    except ModelError as error:
        raise ModelError(
            f"{error}. The command for that is 'quantize --checkpoint {name} --calibration "
            "VIDEO|FOLDER -o MODEL --method tinysam'; then run with --model MODEL"
        ) from error
    write_folder(made, folder)
    report(f"kept in {folder}")
    return folder


def require_training_extra(what: str) -> None:
    """Raise `ModelError` unless torch and nncf are installed."""
    missing = [package for package in ("torch", "nncf") if find_spec(package) is None]
    if missing:
        raise ModelError(f"{what} needs {' and '.join(missing)}: pip install 'maskstream[train]'")
