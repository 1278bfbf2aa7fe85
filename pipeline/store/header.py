"""Root attributes of a mask store: format, source, row counts, events and review."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from maskstream.pipeline.errors import StoreCorruptError, StoreError
from maskstream.pipeline.store.layout import (
    CLASSES_VERSION,
    FORMAT,
    LABELS,
    ROOT_FILE,
    VERSION,
    Table,
    tables,
)
from maskstream.pipeline.store.place import Place
from maskstream.pipeline.types import SourceInfo

_EMPTYING = "emptying"


@dataclass(frozen=True, slots=True)
class Header:
    """Root attributes of a mask store.

    attributes: the caller's (model, config, versions), JSON values. complete: the source was
    processed to its end. frames, objects, hidden: committed rows of the tables; later frames are in
    the journal. events: committed ones, JSON objects. span: requested part of the source, JSON
    values. review: review items, JSON objects; None if they were not computed since the last frame.
    classes: whether the object table has classes (format version 3).
    """

    source: SourceInfo
    attributes: Mapping[str, Any]
    complete: bool = False
    frames: int = 0
    objects: int = 0
    hidden: int = 0
    events: Sequence[Mapping[str, Any]] = ()
    span: Mapping[str, Any] = field(default_factory=dict)
    review: Sequence[Mapping[str, Any]] | None = None
    classes: bool = False

    @property
    def counts(self) -> Mapping[str, int]:
        """Committed rows by table name."""
        return {"frames": self.frames, "objects": self.objects, "hidden": self.hidden}

    @property
    def tables(self) -> tuple[Table, Table, Table]:
        """The store's tables: frames, objects, hidden."""
        return tables(live=self.source.live, classes=self.classes)

    def to_json(self) -> dict[str, Any]:
        """The attributes as Zarr stores them."""
        return {
            "format": FORMAT,
            "version": CLASSES_VERSION if self.classes else VERSION,
            "ome": as_image(self.source),
            "source": _source_to_json(self.source),
            "span": dict(self.span),
            "attributes": dict(self.attributes),
            "complete": self.complete,
            "rows": dict(self.counts),
            "events": list(self.events),
            "review": None if self.review is None else list(self.review),
        }


def is_store(place: Place) -> bool:
    """Whether there is a mask store, of any version."""
    try:
        return _root_attributes(place).get("format") == FORMAT
    except (OSError, ValueError):
        return False


def is_emptied(place: Place) -> bool:
    """Whether a writer was interrupted while creating or replacing the store."""
    try:
        return _EMPTYING in _root_attributes(place)
    except (OSError, ValueError):
        return False


def mark_emptying(place: Place) -> None:
    """Mark the store's contents invalid before replacing them. Raises `OSError`."""
    _write_root(place, {"format": FORMAT, "version": VERSION, _EMPTYING: True})


def write_header(place: Place, header: Header) -> None:
    """Replace the header, atomically. Raises `OSError`."""
    _write_root(place, header.to_json())


def read_header(place: Place) -> Header:
    """Read the header of a store.

    Raises:
        StoreError: there is no mask store, or one of another format version.
        StoreCorruptError: the header is unreadable or incomplete.
    """
    try:
        root = _root_attributes(place)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"There is no mask store at {place.name}.") from error
    except OSError as error:
        raise StoreError(
            f"The mask store {place.name} cannot be read: {error.strerror or error}."
        ) from error
    except ValueError as error:
        raise StoreCorruptError(
            f"{ROOT_FILE} of the mask store {place.name} is damaged: {error}."
        ) from error
    if root.get("format") != FORMAT:
        raise StoreError(f"{place.name} is a Zarr group, but not a mask store.")
    if root.get("version") not in (VERSION, CLASSES_VERSION):
        raise StoreError(
            f"The mask store {place.name} has format version {root.get('version')}, this "
            f"maskstream reads versions {VERSION} and {CLASSES_VERSION}; write it again with "
            "--overwrite, or read it with the maskstream that wrote it."
        )
    if _EMPTYING in root:
        raise StoreError(f"The mask store {place.name} is empty; run again to write it.")
    try:
        return Header(
            source=_source_from_json(root["source"]),
            attributes=dict(root["attributes"]),
            span=dict(root["span"]),
            complete=bool(root["complete"]),
            events=[dict(event) for event in root["events"]],
            review=_review_from_json(root.get("review")),
            classes=root["version"] == CLASSES_VERSION,
            **{table: _count(root["rows"][table]) for table in ("frames", "objects", "hidden")},
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise StoreCorruptError(
            f"The attributes of the mask store {place.name} are damaged: {error!r}."
        ) from error


def _root_attributes(place: Place) -> dict[str, Any]:
    document = json.loads(place.read(ROOT_FILE))
    attributes = document.get("attributes", {}) if isinstance(document, dict) else None
    if not isinstance(attributes, dict):
        raise ValueError("it holds no attributes")
    return attributes


def _write_root(place: Place, attributes: Mapping[str, Any]) -> None:
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    place.replace(ROOT_FILE, json.dumps(document, indent=1).encode())


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _review_from_json(values: object) -> list[dict[str, Any]] | None:
    return [dict(item) for item in values] if isinstance(values, list) else None


def as_image(source: SourceInfo, path: str = LABELS) -> dict[str, Any]:
    """OME-Zarr 0.5 metadata of the label array at `path` as a single-scale image, for viewers."""
    axes = [
        {"name": "t", "type": "time"},
        {"name": "y", "type": "space"},
        {"name": "x", "type": "space"},
    ]
    scale = {"type": "scale", "scale": [1.0, 1.0, 1.0]}  # frames and pixels
    dataset = {"path": path, "coordinateTransformations": [scale]}
    return {
        "version": "0.5",
        "multiscales": [{"name": source.name, "axes": axes, "datasets": [dataset]}],
    }


def _source_to_json(info: SourceInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "size_hw": list(info.size_hw),
        "time_base": str(info.time_base),
        "rate": None if info.rate is None else str(info.rate),
        "frame_count": info.frame_count,
        "rotation_deg": info.rotation_deg,
        "mirrored": info.mirrored,
        "sample_aspect": str(info.sample_aspect),
        "timecode": info.timecode,
        "codec": info.codec,
        "clock": info.clock,
        "live": info.live,
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
        mirrored=values.get("mirrored", False),
        sample_aspect=Fraction(values["sample_aspect"]),
        timecode=values.get("timecode"),
        codec=values["codec"],
        clock=values.get("clock", "stream"),
        live=values.get("live", False),
    )
