"""Videos with ground-truth masks, and which objects are prompted and scored on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.sources.mask_images import read_label_map
from maskstream.pipeline.types import LabelMap, SizeHW, Source

VOID = 255
"""Label of pixels that are ignored, unless it is the only label: then it is the object."""

BoolMap = npt.NDArray[np.bool_]


class Truth(Protocol):
    """Label maps of the annotated frames; 0 is background."""

    @property
    def frames(self) -> tuple[int, ...]:
        """Indices of the annotated frames, ascending."""

    @property
    def length(self) -> int | None:
        """Number of frames that the video must have, or None if the masks do not tell."""

    def at(self, frame: int) -> LabelMap:
        """Label map uint16 [H, W] of an annotated frame. Raises `SourceError`."""


@dataclass(frozen=True, slots=True)
class ArrayTruth:
    """Label maps [T, H, W] of all frames."""

    masks: npt.NDArray[np.unsignedinteger]

    @property
    def frames(self) -> tuple[int, ...]:
        """All frames."""
        return tuple(range(len(self.masks)))

    @property
    def length(self) -> int | None:
        """The number of label maps."""
        return len(self.masks)

    def at(self, frame: int) -> LabelMap:
        """The frame's label map."""
        return np.asarray(self.masks[frame], np.uint16)


@dataclass(frozen=True, slots=True)
class FileTruth:
    """Label maps in PNG files, by frame; ascending."""

    files: Mapping[int, Path]

    @property
    def frames(self) -> tuple[int, ...]:
        """Indices of the frames that have a file."""
        return tuple(self.files)

    @property
    def length(self) -> int | None:
        """Unknown: possibly only some frames have masks."""
        return None

    def at(self, frame: int) -> LabelMap:
        """Read the frame's label map."""
        return read_label_map(self.files[frame])


@dataclass(frozen=True, slots=True)
class Clip:
    """A video and its masks; `truth` uses the source's frame indices."""

    source: Source
    truth: Truth


@dataclass(frozen=True, slots=True)
class ClipEntry:
    """A clip that is not read yet. `load` raises `SourceError`."""

    name: str
    load: Callable[[], Clip]


@dataclass(frozen=True, slots=True)
class SequenceTask:
    """Which objects of a clip are prompted and on which frames they are scored.

    given: masks bool [H, W] by object id, by the frame on which they are prompted: the first
    annotated frame on which the object appears. scored: ids by annotated frame: the objects
    prompted before it. void: the label of ignored pixels, or None.
    """

    clip: Clip
    size_hw: SizeHW
    given: Mapping[int, Mapping[int, BoolMap]]
    scored: Mapping[int, tuple[int, ...]]
    void: int | None

    @property
    def objects(self) -> tuple[int, ...]:
        """Ids that are scored on any frame."""
        return tuple(sorted({i for ids in self.scored.values() for i in ids}))

    def truth(self, frame: int) -> tuple[LabelMap, BoolMap]:
        """Label map of an annotated frame and its valid (not void) pixels, both [H, W]."""
        labels = self.clip.truth.at(frame)
        valid = np.ones(labels.shape, np.bool_) if self.void is None else labels != self.void
        return np.where(valid, labels, 0).astype(np.uint16), valid

    def check_frames(self, name: str, seen: int) -> None:
        """Raise `UnreadableSourceError` if the numbers of masks and of frames differ."""
        length = self.clip.truth.length
        if length is not None and length != seen:
            raise UnreadableSourceError(f"{name} has {seen} frames, but masks for {length}")


def set_task(name: str, clip: Clip) -> SequenceTask:
    """Find the frame on which each object is prompted. Raises `SourceError`."""
    with clip.source.open() as reader:
        size_hw = reader.info.size_hw
    present = {frame: _labels(name, clip, frame, size_hw) for frame in clip.truth.frames}
    values = set().union(*present.values())
    void = VOID if values - {VOID} else None
    known: set[int] = set()
    given: dict[int, dict[int, BoolMap]] = {}
    scored: dict[int, tuple[int, ...]] = {}
    for frame, labels in present.items():
        if known:
            scored[frame] = tuple(sorted(known))
        fresh = labels - known - {void}
        if fresh:
            given[frame] = _masks(clip.truth.at(frame), fresh)
            known |= fresh
    return SequenceTask(clip, size_hw, given, scored, void)


def _labels(name: str, clip: Clip, frame: int, size_hw: SizeHW) -> set[int]:
    labels = clip.truth.at(frame)
    if labels.shape != size_hw:
        (rows, columns), (height, width) = labels.shape, size_hw
        raise UnreadableSourceError(
            f"the mask of frame {frame} of {name} is {columns}x{rows}, but the video is "
            f"{width}x{height} pixels"
        )
    return {int(value) for value in np.unique(labels) if value}


def _masks(labels: LabelMap, ids: set[int]) -> dict[int, BoolMap]:
    return {i: labels == i for i in sorted(ids)}
