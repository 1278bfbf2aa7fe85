"""The seam between the export and its formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
"""Of the video's pictures where they are written beside annotations."""
_EXPECTED_SUFFIX = ".png"  # else: what others are taken to make of the video


@dataclass(frozen=True, slots=True)
class ExportJob:
    """What is exported, and where to.

    numbers: those of all frames, as they are written, int64 [T]. video: where the pixels are, for
    formats that need them. frame_count: of the whole video, if the masks' maker read all of it and
    it is known. edges: for formats that take them. background: as a person says it. images: the
    video's are written, too.
    """

    output: Output
    source: SourceInfo
    objects: tuple[ExportObject, ...]
    numbers: npt.NDArray[np.int64]
    names: NameTemplate
    video: Path | None = None
    frame_count: int | None = None
    edges: Edges = PLAIN
    background: str | None = None
    images: bool = False

    def image_of(self, number: int) -> str:
        """Name of the picture that a frame's annotations are of, below the pictures' folder."""
        return self.names.of(number) + (IMAGE_SUFFIX if self.images else _EXPECTED_SUFFIX)

    @property
    def categories(self) -> list[str]:
        """The classes of the objects, each once, in the order of the objects."""
        return list(dict.fromkeys(chosen.category for chosen in self.objects))


class Exporter(Protocol):
    """Writes one format. Frames come in order: all to `write`, then, after `finish`, to `check`."""

    def write(self, frame: ExportFrame) -> None:
        """Take a frame. Raises `OSError`."""
        ...

    def finish(self) -> None:
        """Write what comes after the last frame. Raises `OSError`."""
        ...

    def check(self, frame: ExportFrame) -> float:
        """Read the frame back; the least IoU of an object as read and in the store, 0 to 1."""
        ...

    def close(self) -> None:
        """Let go of open files; called exactly once, also after an error."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """A format that can be chosen.

    suffix: the end of its one file's name; "" if it is a folder. template: of the names in it.
    largest_id: the greatest object number that fits. iou_min: below it, what was read back is
    taken for damaged. needs_video: pixels are written as well. takes_edges, takes_background: the
    options of these names mean something. images: folder of the video's pictures if they are
    wanted, "{source}" in it stands for the video's name; below the place, or for one file below a
    folder beside it; None: the format has no place for them.
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
