"""Interface between exports and formats: `ExportJob`, `Exporter`, `Format`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.exports.edges import PLAIN, Edges
from maskstream.pipeline.exports.frames import ExportFrame, ExportObject
from maskstream.pipeline.exports.names import NameTemplate
from maskstream.pipeline.exports.output import Output
from maskstream.pipeline.types import SourceInfo

IMAGE_SUFFIX = ".jpg"
"""Suffix of the video's images written beside annotations."""
_EXPECTED_SUFFIX = ".png"  # of image names in annotations when images are not written


@dataclass(frozen=True, slots=True)
class ExportJob:
    """Everything an exporter needs: objects, frames, output, options.

    numbers: frame numbers in the export, int64 [T]. video: path of the video, for formats that need
    its pixels. frame_count: of the whole video, if known from a complete run. edges: for formats
    that use them; object_edges: of objects with their own, by id. background: as given by the user.
    images: whether the video's images are written. rate: frames per second where the source has no
    timestamps. keep_start: keep the time of the first frame. deinterlace: the masks are of
    deinterlaced frames.
    """

    output: Output
    source: SourceInfo
    objects: tuple[ExportObject, ...]
    numbers: npt.NDArray[np.int64]
    names: NameTemplate
    video: Path | None = None
    frame_count: int | None = None
    edges: Edges = PLAIN
    object_edges: Mapping[int, Edges] = field(default_factory=dict)
    background: str | None = None
    images: bool = False
    rate: Fraction | None = None
    keep_start: bool = False
    deinterlace: bool = False

    def image_of(self, number: int) -> str:
        """Name of a frame's image in the annotations, below the image folder."""
        return self.names.of(number) + (IMAGE_SUFFIX if self.images else _EXPECTED_SUFFIX)

    @property
    def categories(self) -> list[str]:
        """The distinct categories, in the order of the objects."""
        return list(dict.fromkeys(chosen.category for chosen in self.objects))


class Exporter(Protocol):
    """Writes one format. Frames come in order: all to `write`, then, after `finish`, to `check`."""

    def write(self, frame: ExportFrame) -> None:
        """Write a frame. Raises `OSError`."""
        ...

    def finish(self) -> None:
        """Write the rest after the last frame. Raises `OSError`."""
        ...

    def check(self, frame: ExportFrame) -> float:
        """Read a frame back; return the lowest IoU of an object with the store, 0 to 1."""
        ...

    def close(self) -> None:
        """Close open files; called exactly once, also after an error."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """An export format.

    suffix: of its single file; "" if it is a folder. template: of file names in the folder.
    largest_id: largest object id it supports. iou_min: a lower IoU on reading back means damage.
    needs_video: whether pixels are written. takes_edges, takes_background: whether these options
    apply. images: folder of the video's images, with "{source}" for the video's name; below the
    output folder, or for a single file in a folder beside it; None: images are not supported.
    """

    summary: str
    open: Callable[[ExportJob], Exporter]
    suffix: str = ""
    template: str = "{frame:06d}"
    largest_id: int = 65535
    iou_min: float = 1.0
    needs_video: bool = False
    takes_edges: bool = False
    takes_background: bool = False
    images: str | None = None
