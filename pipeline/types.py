"""Data types and Protocols shared by the subpackages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.addresses import masked
from maskstream.trackers.state import TrackState

RgbImage = npt.NDArray[np.uint8]
GrayImage = npt.NDArray[np.uint8]
LabelMap = npt.NDArray[np.uint16]
SizeHW = tuple[int, int]
WantedDevice = Literal["cpu", "cuda", "auto"]
Engine = Literal["openvino", "onnxruntime"]
WantedEngine = Literal["openvino", "onnxruntime", "auto"]


class PixelView(Protocol):
    """Pixels of one decoded frame, converted and scaled on request."""

    def rgb(self, size_hw: SizeHW) -> RgbImage:
        """RGB uint8 [H, W, 3] of the displayed (rotated, square-pixel) image at `size_hw`."""
        ...

    def gray(self, size_hw: SizeHW) -> GrayImage:
        """Luma uint8 [H, W] of the displayed image at `size_hw`."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """Arrival of a live frame: when its packet came, before it waited to be decoded.

    monotonic_s: by the clock for latency. unix_s: by the capture clock, seconds since 1970. gap_s:
    length of a gap before the frame, 0 if there was none. gap_reason: its cause. ntp_s: capture by
    the sender's clock, seconds since 1970, where the sender states it (RTCP). given_ns: capture as
    the program that gave the frame states it, nanoseconds.
    """

    monotonic_s: float
    unix_s: float
    gap_s: float = 0.0
    gap_reason: str = ""
    ntp_s: float | None = None
    given_ns: int | None = None

    def after(self, dropped: Arrival) -> Arrival:
        """Add the gap before a frame that was dropped before this one."""
        reasons = dict.fromkeys(r for r in (dropped.gap_reason, self.gap_reason) if r)
        return replace(self, gap_s=dropped.gap_s + self.gap_s, gap_reason="; ".join(reasons))


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a source.

    index: frame index in the source. pts: presentation timestamp in `time_base` units, from the
    container, or None. size_hw: displayed size, pixels. arrival: of live frames only. duration: in
    `time_base` units, if known. jump_s: by how many seconds the container's timestamps jumped
    before this frame, where a recording starts anew; `pts` goes on from the frame before.
    """

    index: int
    pts: int | None
    time_base: Fraction
    size_hw: SizeHW
    view: PixelView
    arrival: Arrival | None = None
    duration: int | None = None
    jump_s: float = 0.0

    @property
    def pts_s(self) -> float | None:
        """Presentation time, seconds."""
        return None if self.pts is None else float(self.pts * self.time_base)

    def after(self, dropped: Frame) -> Frame:
        """Add the gap and the jump before a frame that was dropped before this one."""
        frame = self
        if dropped.jump_s:
            frame = replace(frame, jump_s=dropped.jump_s + frame.jump_s)
        if dropped.arrival is not None and dropped.arrival.gap_s and frame.arrival is not None:
            frame = replace(frame, arrival=frame.arrival.after(dropped.arrival))
        return frame

    def rgb(self, size_hw: SizeHW | None = None) -> RgbImage:
        """RGB uint8 [H, W, 3] at `size_hw` (default: the displayed size)."""
        return self.view.rgb(size_hw or self.size_hw)

    def gray(self, size_hw: SizeHW | None = None) -> GrayImage:
        """Luma uint8 [H, W] at `size_hw` (default: the displayed size)."""
        return self.view.gray(size_hw or self.size_hw)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Properties of a source.

    name: a path, or an address, in which passwords are masked. size_hw: displayed size.
    frame_count: frames in the selected range if known (for some containers an estimate). rate:
    average frames per second if known. rotation_deg: counterclockwise rotation that was applied.
    mirrored: then flipped left to right. sample_aspect: width of a pixel by its height, applied.
    field_order: which field of woven pictures is shown first, 't' or 'b'; "" if they are whole.
    timecode: of the first frame of the source (SMPTE), if it states one. indices: the source has no
    other frames in the selected range; None if that is not known. clock: of the timestamps: the
    stream's, or the capture clock (seconds since 1970). live: frames arrive as they are captured
    and have an `arrival`.
    """

    name: str
    size_hw: SizeHW
    time_base: Fraction
    rate: Fraction | None = None
    frame_count: int | None = None
    rotation_deg: int = 0
    mirrored: bool = False
    sample_aspect: Fraction = Fraction(1)
    codec: str = ""
    field_order: Literal["t", "b", ""] = ""
    timecode: str | None = None
    indices: Sequence[int] | None = field(default=None, compare=False)
    clock: Literal["stream", "capture"] = "stream"
    live: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", masked(self.name))


@dataclass(slots=True)
class SourceReport:
    """Counts of frames and of damage, updated by the reader.

    recording_failed: why the recording of the source ended early; "" if it did not.
    """

    frames: int = 0
    corrupt_packets: int = 0
    recording_failed: str = ""
    messages: list[str] = field(default_factory=list)  # the first few, for the user
    notes: list[str] = field(default_factory=list)  # what was done to the source, for the user


class FrameReader(Protocol):
    """An opened source: iterate once over its frames."""

    info: SourceInfo
    report: SourceReport

    def __iter__(self) -> Iterator[Frame]: ...


class Source(Protocol):
    """An input, not opened yet; the reader thread calls `open`."""

    def open(self) -> AbstractContextManager[FrameReader]:
        """Open the input; leaving the context closes it. Raises `SourceError`."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectResult:
    """One object on one frame.

    box_xyxy: pixels of the displayed frame, right and bottom exclusive. score: confidence 0..1.
    area: pixels of the mask in `FrameResult.labels`. label: its class, "" if no detector named it.
    detector_score: the detector's score when it last saw the object, 0..1; None if it never did.
    """

    id: int
    box_xyxy: tuple[float, float, float, float]
    score: float
    state: TrackState
    area: int
    label: str = ""
    detector_score: float | None = None


@dataclass(frozen=True, slots=True)
class CoveredPart:
    """Pixels of an object that are covered by another one in `FrameResult.labels`.

    mask: bool [h, w] of the covered pixels, in the window whose top left pixel is (y0, x0).
    """

    object_id: int
    y0: int
    x0: int
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FrameResult:
    """Result of one frame.

    labels: uint16 [H, W] at the displayed size, 0 background, else the object's id. covered:
    covered pixels of objects, at most one part per object. captured_s: arrival of a live frame by
    the capture clock, seconds since 1970.
    """

    index: int
    pts: int | None
    time_base: Fraction
    keyframe: bool
    labels: LabelMap
    objects: tuple[ObjectResult, ...]
    covered: tuple[CoveredPart, ...] = field(default=(), compare=False)  # arrays do not compare
    captured_s: float | None = None

    def mask(self, object_id: int) -> npt.NDArray[np.bool_]:
        """Whole mask of one object, bool [H, W], including covered pixels."""
        mask = np.equal(self.labels, object_id)
        for part in self.covered:
            if part.object_id == object_id:
                rows, columns = part.mask.shape
                mask[part.y0 : part.y0 + rows, part.x0 : part.x0 + columns] |= part.mask
        return mask

    @property
    def pts_s(self) -> float | None:
        """Presentation time, seconds."""
        return None if self.pts is None else float(self.pts * self.time_base)


class Sink(Protocol):
    """Receives results in frame order; `close` finishes the output."""

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Write one result; `frame` is for sinks that need pixels."""
        ...

    def idle(self) -> None:
        """Called while no results arrive, for example to commit."""
        ...

    def close(self, *, complete: bool) -> None:
        """Finish the output; called exactly once, also after an error.

        complete: the source was processed to its end.
        """
        ...
