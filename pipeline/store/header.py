"""The root attributes of a mask store: what it is, what it was made from, how far it got."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.errors import StoreCorruptError, StoreError
from pipeline.store.layout import FORMAT, ROOT_FILE, VERSION
from pipeline.types import SourceInfo


@dataclass(frozen=True, slots=True)
class Header:
    """Root attributes.

    attributes: what the caller wants kept (model, config, versions), as JSON values.
    complete: the source was processed to its end.
    """

    source: SourceInfo
    attributes: Mapping[str, Any]
    complete: bool = False
    committed_frames: int = 0
    committed_objects: int = 0

    def to_json(self) -> dict[str, Any]:
        """The attributes as Zarr stores them."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "source": _source_to_json(self.source),
            "attributes": dict(self.attributes),
            "complete": self.complete,
            "committed_frames": self.committed_frames,
            "committed_objects": self.committed_objects,
        }


def is_store(path: Path) -> bool:
    """Whether `path` is a folder that holds a mask store, of whatever version."""
    try:
        return _root_attributes(path).get("format") == FORMAT
    except (OSError, ValueError):
        return False


def read_header(path: Path) -> Header:
    """Read the header of the store at `path`.

    Raises:
        StoreError: there is no mask store, or one of a newer format.
        StoreCorruptError: the header is unreadable or lacks something.
    """
    try:
        root = _root_attributes(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"There is no mask store at {path}.") from error
    except OSError as error:
        raise StoreError(f"The mask store {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise StoreCorruptError(f"{path / ROOT_FILE} is damaged: {error}.") from error
    if root.get("format") != FORMAT:
        raise StoreError(f"{path} is a Zarr group, but not a mask store.")
    if root.get("version") != VERSION:
        raise StoreError(
            f"The mask store {path} has format version {root.get('version')}, this maskstream "
            f"reads version {VERSION}; use the maskstream that wrote it."
        )
    try:
        return Header(
            source=_source_from_json(root["source"]),
            attributes=dict(root["attributes"]),
            complete=bool(root["complete"]),
            committed_frames=_count(root["committed_frames"]),
            committed_objects=_count(root["committed_objects"]),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise StoreCorruptError(f"The attributes of {path} are damaged: {error!r}.") from error


def _root_attributes(path: Path) -> dict[str, Any]:
    document = json.loads((path / ROOT_FILE).read_bytes())
    attributes = document.get("attributes", {}) if isinstance(document, dict) else None
    if not isinstance(attributes, dict):
        raise ValueError("it holds no attributes")
    return attributes


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _source_to_json(info: SourceInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "size_hw": list(info.size_hw),
        "time_base": str(info.time_base),
        "rate": None if info.rate is None else str(info.rate),
        "frame_count": info.frame_count,
        "rotation_deg": info.rotation_deg,
        "sample_aspect": str(info.sample_aspect),
        "codec": info.codec,
    }


def _source_from_json(values: Mapping[str, Any]) -> SourceInfo:
    height, width = values["size_hw"]
    return SourceInfo(
        name=values["name"],
        size_hw=(int(height), int(width)),
        time_base=Fraction(values["time_base"]),
        rate=None if values["rate"] is None else Fraction(values["rate"]),
        frame_count=values["frame_count"],
        rotation_deg=values["rotation_deg"],
        sample_aspect=Fraction(values["sample_aspect"]),
        codec=values["codec"],
    )
