"""From what a user calls a model to a model folder: embedded, given, cached, or made now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.models.open import names_checkpoint
from maskstream.pipeline.segmenter.model import content_hash, find_model
from maskstream.pipeline.types import RgbImage
from maskstream.pipeline.weights.cache import cache_folder
from maskstream.pipeline.weights.registry import Registry

CALIBRATION_IMAGES = 32
METHOD = "nncf"  # made in about half the time, and who uses a model first waits for it


def resolve_model(
    name: str, images: Callable[[int], Sequence[RgbImage]], report: Callable[[str], None]
) -> Path:
    """The folder of a model: an embedded name, a folder, a published name or a checkpoint file.

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
        report(f"stopped; nothing of {name} is kept, its next use begins anew")
        raise
    except ModelError as error:
        raise ModelError(
            f"{error}. The command for that is 'quantize --checkpoint {name} --calibration "
            "VIDEO|FOLDER -o MODEL --method tinysam'; then run with --model MODEL"
        ) from error
    write_folder(made, folder)
    report(f"kept in {folder}")
    return folder


def find_checkpoint(name: str) -> tuple[Path, str | None]:
    """File of a checkpoint by published name or path, and its network if the name tells it.

    Raises `ModelError`.
    """
    if Path(name).is_file():
        return Path(name), None
    registry = Registry.published()
    path = registry.path_of(name)
    if not path.is_file():
        raise ModelError(
            f"the weights of {name} are not here: fetch them with 'weights get {name}' (it takes "
            f"{registry.url_of(name)}), or import that file, fetched elsewhere, with "
            "'weights import FILE'"
        )
    return path, name


def require_training_extra(what: str) -> None:
    """Raise `ModelError` unless torch and nncf are installed."""
    missing = [package for package in ("torch", "nncf") if find_spec(package) is None]
    if missing:
        raise ModelError(f"{what} needs {' and '.join(missing)}: pip install 'maskstream[train]'")
