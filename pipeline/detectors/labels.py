"""Names of a graph's classes: from its metadata, a file beside it, or as given by the user."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from maskstream.pipeline.errors import DetectorError

Labels = Mapping[int, str]

logger = logging.getLogger(__name__)

_SUFFIXES = (".txt", ".names", ".csv", ".json", ".yaml", ".yml")


def given_labels(values: Sequence[str]) -> Labels:
    """Names by class number, as given: the names, or one path of a file.

    The file is text with one name a line, YAML or JSON with `names`, a list or a mapping, or COCO
    JSON with `categories`. Lists count from 0. A single value is a path if there is such a file, or
    if it has the suffix of one. Raises `DetectorError`.
    """
    if len(values) != 1 or is_single_name(values):
        return dict(enumerate(values))
    file = Path(values[0])
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise DetectorError(f"cannot read the labels {file}: {reason}") from error
    suffix = file.suffix.lower()
    if suffix in (".json", ".yaml", ".yml"):
        try:
            found = yaml.safe_load(text) if suffix != ".json" else json.loads(text)
        except (ValueError, yaml.YAMLError) as error:
            raise DetectorError(f"the labels {file} cannot be read: {error}") from error
        labels = _labels_in(found)
    else:
        labels = dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
    if not labels:
        raise DetectorError(
            f"{file} holds no labels: it takes a name a line, 'names' in YAML or JSON, or COCO's "
            "'categories'"
        )
    return labels


def is_single_name(values: Sequence[str]) -> bool:
    """Whether labels as given are one name, rather than several or a path."""
    if len(values) != 1:
        return False
    file = Path(values[0])
    return not file.is_file() and file.suffix.lower() not in _SUFFIXES


def categories(values: Any) -> Labels | None:
    """Names of COCO's categories by id; None if these are none."""
    try:
        return {int(each["id"]): str(each["name"]) for each in values}
    except (KeyError, TypeError, ValueError):
        return None


def graph_labels(metadata: Mapping[str, str], file: Path) -> Labels:
    """Names in a graph's metadata, or in `metadata.yaml` beside it; empty if there are none.

    Ultralytics writes `names` as a Python mapping to ONNX, and `labels` with spaces between (and
    underscores within) to OpenVINO's `model_info`.
    """
    if "names" in metadata:
        try:
            found = _labels_in({"names": ast.literal_eval(metadata["names"])})
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = {}
        return found or _unnamed(f"'names' in the metadata of {file.name}")
    beside = file.with_name("metadata.yaml")
    if beside.is_file():
        try:
            found = _labels_in(yaml.safe_load(beside.read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError):
            found = {}
        return found or _unnamed(str(beside))
    names = metadata.get("labels", "").split()
    return dict(enumerate(name.replace("_", " ") for name in names))


def _unnamed(where: str) -> Labels:
    logger.warning(
        "%s cannot be read as names of classes: they are called 'class 0' and so on; give --labels",
        where,
    )
    return {}


def _labels_in(values: Any) -> Labels:
    if isinstance(values, Mapping) and "categories" in values:
        return categories(values["categories"]) or {}
    names = values.get("names") if isinstance(values, Mapping) else values
    if isinstance(names, Sequence) and not isinstance(names, str):
        return {number: str(name) for number, name in enumerate(names)}
    if isinstance(names, Mapping):
        try:
            return {int(number): str(name) for number, name in names.items()}
        except (TypeError, ValueError):
            return {}
    return {}


def label_of(labels: Labels, number: int) -> str:
    """The name of a class; `class N` if it has none."""
    return labels.get(number, f"class {number}")
