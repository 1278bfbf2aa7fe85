"""The prompts file: an append-only log of a person's events, by frame.

`{"version": 1, "events": [{"frame": 0, "type": "point", "object": 1, "xy": [x, y], "label": 1},
{"frame": 0, "type": "box", "object": 2, "xyxy": [x0, y0, x1, y1]}, {"frame": 0, "type": "mask",
"object": 3, "mask": "cup.png"}, {"frame": 40, "type": "remove", "object": 1}, {"frame": 40, "type":
"rename", "object": 3, "name": "cup"}]}`, in pixels of the displayed (rotated) frame.

A frame is a number, or a timecode such as `"00:00:03:12"` that `load_prompts` resolves.
A mask is the path of a PNG of the frame's size, relative to the prompts file; pixels that are not 0
are the object.

A session of the page (`ui/editing/session.py`) is such a file, too: `tracking` are its jobs, which
`maskstream.pipeline.runs.retrack` runs again, `page` is the page's data.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from maskstream.pipeline.errors import ConfigError, PromptError, SourceError
from maskstream.pipeline.sources.known_frames import frame_at
from maskstream.pipeline.sources.mask_images import read_mask
from maskstream.pipeline.types import SizeHW, Source

MAX_OBJECT_ID = 65535
_TYPES = ("point", "box", "mask", "remove", "rename")
_LONGEST_NAME = 100
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    frame: int = Field(ge=0)
    object: int = Field(ge=1, le=MAX_OBJECT_ID)


class PointEvent(_Event):
    """A click: positive, on the object (label 1), or negative, beside it (label 0)."""

    type: Literal["point"]
    xy: tuple[_Finite, _Finite]
    label: Literal[0, 1] = 1


class BoxEvent(_Event):
    """A box around the object."""

    type: Literal["box"]
    xyxy: tuple[_Finite, _Finite, _Finite, _Finite]

    @model_validator(mode="after")
    def _has_area(self) -> BoxEvent:
        x0, y0, x1, y1 = self.xyxy
        if x1 <= x0 or y1 <= y0:
            raise ValueError("a box is x0, y0, x1, y1 with x1 > x0 and y1 > y0")
        return self


class MaskEvent(_Event):
    """The object as a mask, bool [H, W] of the frame's size, which is used directly.

    Given as an array, or as the path of an image (relative to the folder of the prompts file), see
    `read_mask`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    type: Literal["mask"]
    mask: npt.NDArray[np.bool_] = Field(repr=False)

    @field_validator("mask", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> npt.NDArray[np.bool_]:
        if isinstance(value, str):
            folder = (info.context or {}).get("folder", Path())
            try:
                value = read_mask(folder / value)
            except SourceError as error:
                raise ValueError(str(error)) from error
        if not isinstance(value, np.ndarray) or value.dtype != np.bool_ or value.ndim != 2:
            raise ValueError("a mask is the path of an image, or an array bool [height, width]")
        if not value.any():
            raise ValueError("the mask is empty")
        return value


class RemoveEvent(_Event):
    """The object is removed from this frame on."""

    type: Literal["remove"]


class RenameEvent(_Event):
    """The name of an object on every frame; an empty name removes an earlier one.

    It does not affect masks; `frame` is the one on which the person gave the name.
    """

    type: Literal["rename"]
    name: Annotated[str, StringConstraints(strip_whitespace=True, max_length=_LONGEST_NAME)]

    @field_validator("name")
    @classmethod
    def _is_one_line(cls, name: str) -> str:
        if name and not name.isprintable():
            raise ValueError("a name is one line of printable characters")
        return name


Prompt = PointEvent | BoxEvent | MaskEvent | RemoveEvent
Event = Annotated[Prompt | RenameEvent, Field(discriminator="type")]


class MaskRef(_Event):
    """The object as a mask file, not read: the path of a PNG relative to the prompts file."""

    type: Literal["mask"]
    mask: str


EventRef = Annotated[MaskRef | RemoveEvent, Field(discriminator="type")]
"""An event of a job in a file, without reading masks."""
Quality = Literal["draft", "final"]
"""Keyframes of a tracking job: few regular ones, or every frame."""
_EventT = TypeVar("_EventT", bound=_Event)


class TrackPass(BaseModel, Generic[_EventT]):
    """Tracking of objects in one direction over the frames `first` to `last`, inclusive."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    direction: Literal["forward", "backward"]
    first: int = Field(ge=0)
    last: int = Field(ge=0)
    events: tuple[_EventT, ...]

    @property
    def frames(self) -> range:
        """Its frame indices."""
        return range(self.first, self.last + 1)

    def narrowed(self, *, first: int | None = None, last: int | None = None) -> Self:
        """Restrict the pass to fewer frames and their events."""
        start = self.first if first is None else first
        end = self.last if last is None else last
        events = tuple(e for e in self.events if start <= e.frame <= end)
        return self.model_copy(update={"first": start, "last": end, "events": events})


class Segment(BaseModel):
    """Frames `first` to `last` of an object that a job tracks again.

    forward, backward: numbers of the job's passes that track it; with both, the forward one gives
    the frames up to where they agree best. With neither, the object is absent on all frames.
    absent: it is absent on the first frame. continues: the previous job's store is the forward
    pass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    object: int = Field(ge=1, le=MAX_OBJECT_ID)
    first: int = Field(ge=0)
    last: int = Field(ge=0)
    forward: int | None = None
    backward: int | None = None
    absent: bool = Field(False, alias="gone")
    continues: bool = Field(False, alias="onto")

    @property
    def empty(self) -> bool:
        """Whether the object is absent on all frames, so that no pass tracks it."""
        return self.forward is None and self.backward is None


class TrackJob(BaseModel, Generic[_EventT]):
    """One tracking job; everything that it does not track is kept from the previous job.

    `TrackJob[Event]` can be run, `TrackJob[EventRef]` is its form in a file. objects: names by id
    of all objects; masks of others are dropped. quality: of its keyframes, model: name; None as
    configured.
    finished: it was not stopped; otherwise its passes end where it stopped.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    objects: dict[int, str]
    passes: tuple[TrackPass[_EventT], ...]
    segments: tuple[Segment, ...] = Field(alias="stretches")
    quality: Quality | None = None
    model: str | None = None
    finished: bool = True

    @model_validator(mode="after")
    def _has_its_passes(self) -> Self:
        for segment in self.segments:
            for number in (segment.forward, segment.backward):
                if number is not None and not 0 <= number < len(self.passes):
                    raise ValueError(f"there is no pass {number}")
        return self

    def truncate_job(self, passes: Sequence[TrackPass[_EventT]], *, finished: bool) -> Self:
        """Truncate the job to these passes, which are its first ones."""
        count = len(passes)
        segments = [left for segment in self.segments if (left := _without_passes(segment, count))]
        return self.model_copy(
            update={"passes": tuple(passes), "segments": tuple(segments), "finished": finished}
        )


def _without_passes(segment: Segment, count: int) -> Segment | None:
    """Remove the passes from number `count` on from a segment; None if it has no pass left."""
    kept = {
        name: number if number is not None and number < count else None
        for name, number in (("forward", segment.forward), ("backward", segment.backward))
    }
    if not segment.empty and not any(number is not None for number in kept.values()):
        return None
    return segment.model_copy(update=kept)


def read_masks(job: TrackJob[EventRef], folder: Path) -> TrackJob[Event]:
    """Read the masks of a job, so that it can be run. Raises `pydantic.ValidationError`."""
    return TrackJob[Event].model_validate(job.model_dump(by_alias=True), context={"folder": folder})


class PromptLog(BaseModel):
    """The prompt log: all events of a session, in order.

    tracking: the jobs that made the page's store, if any, to be run again in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    events: tuple[Event, ...] = ()
    tracking: tuple[TrackJob[Event], ...] = Field(default=(), repr=False)
    page: dict[str, Any] = Field(default={}, repr=False)

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Events that determine masks: all but names."""
        return tuple(e for e in self.events if not isinstance(e, RenameEvent))

    def at(self, frame: int) -> tuple[Prompt, ...]:
        """Prompts of one frame, in order."""
        return tuple(e for e in self.prompts if e.frame == frame)

    @property
    def frames(self) -> frozenset[int]:
        """Frames that have prompts."""
        return frozenset(e.frame for e in self.prompts)

    @property
    def last_object(self) -> int:
        """The greatest object id that prompts use, 0 if there is none."""
        return max((e.object for e in self.prompts), default=0)

    def check_frames(self, indices: Sequence[int] | None) -> None:
        """Check that every prompt is on a frame of the source; None if these are not known.

        indices: frames of the range that is run, ascending.

        Raises:
            PromptError: a prompt is on another frame; the message names the nearest ones.
        """
        if indices is None:
            return
        for event in self.prompts:
            after = bisect_left(indices, event.frame)
            if after < len(indices) and indices[after] == event.frame:
                continue
            nearest = [indices[n] for n in (after - 1, after) if 0 <= n < len(indices)]
            which = " and ".join(str(index) for index in nearest) or "none"
            raise PromptError(
                f"the prompts name frame {event.frame}, which is not among the frames of this run "
                f"(nearest: {which}); check --start, --end and --stride, or the prompts"
            )

    def check_inside(self, size_hw: SizeHW) -> None:
        """Raise `PromptError` if a prompt lies outside an image of this size."""
        height, width = size_hw
        for event in self.prompts:
            if isinstance(event, PointEvent):
                x, y = event.xy
                inside = 0 <= x < width and 0 <= y < height
            elif isinstance(event, BoxEvent):
                x0, y0, x1, y1 = event.xyxy
                inside = x0 < width and y0 < height and x1 > 0 and y1 > 0
            elif isinstance(event, MaskEvent):
                _check_size(event, size_hw)
                continue
            else:
                continue
            if not inside:
                raise PromptError(
                    f"the {event.type} of object {event.object} on frame {event.frame} lies "
                    f"outside the image of {width}x{height} pixels"
                )


def _check_size(event: MaskEvent, size_hw: SizeHW) -> None:
    if event.mask.shape != size_hw:
        (rows, columns), (height, width) = event.mask.shape, size_hw
        raise PromptError(
            f"the mask of object {event.object} on frame {event.frame} is {columns}x{rows}, but "
            f"the image is {width}x{height} pixels"
        )


NO_PROMPTS = PromptLog(version=1)


def load_prompts(file: Path, source: Source | None = None) -> PromptLog:
    """Read a prompts file. Raises `PromptError` with the line of the error, and `SourceError`.

    source: the video that it is for, which is opened if frames are given as timecodes.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise PromptError(f"cannot read the prompts {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"{file} is not a text file") from error
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise PromptError(f"{file}, line {error.lineno}: not JSON ({error.msg})") from error
    if source is not None:
        _resolve_timecodes(values, source, file, text)
    try:
        return PromptLog.model_validate(values, context={"folder": file.parent})
    except ValidationError as error:
        problem = error.errors()[0]
        path = [part for part in problem["loc"] if part not in _TYPES]
        line = _line_of(text, path)
        key = ".".join(str(part) for part in path) or "the file"
        message = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
        raise PromptError(f"{file}, line {line}: {key}: {message}") from error


def _resolve_timecodes(values: Any, source: Source, file: Path, text: str) -> None:
    """Replace timecodes of frames by frame indices; anything wrong is left to the validation."""
    events = values.get("events") if isinstance(values, dict) else None
    named = [
        (number, event)
        for number, event in enumerate(events if isinstance(events, list) else [])
        if isinstance(event, dict) and isinstance(event.get("frame"), str)
    ]
    if not named:
        return
    with source.open() as reader:
        info = reader.info
    for number, event in named:
        try:
            event["frame"] = frame_at(info, event["frame"])
        except ConfigError as error:
            line = _line_of(text, ["events", number])
            raise PromptError(f"{file}, line {line}: frame: {error}") from error


def _line_of(text: str, path: list[int | str]) -> int:
    """Line of the event of a validation error (1 for errors of the whole file)."""
    if len(path) < 2 or path[0] != "events" or not isinstance(path[1], int):
        return 1
    decoder = json.JSONDecoder()
    position = text.index("[", text.index('"events"')) + 1
    for _ in range(path[1] + 1):
        while text[position] in " \t\r\n,":
            position += 1
        start = position
        _, position = decoder.raw_decode(text, position)
    return text.count("\n", 0, start) + 1
