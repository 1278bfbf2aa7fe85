"""The prompts file: an append-only log of what a person asked for, by frame.

`{"version": 1, "events": [{"frame": 0, "type": "point", "object": 1, "xy": [x, y], "label": 1},
{"frame": 0, "type": "box", "object": 2, "xyxy": [x0, y0, x1, y1]},
{"frame": 40, "type": "remove", "object": 1}]}`, in pixels of the displayed (turned) frame.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import PromptError
from pipeline.types import SizeHW

MAX_OBJECT_ID = 65535
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    frame: int = Field(ge=0)
    object: int = Field(ge=1, le=MAX_OBJECT_ID)


class PointEvent(_Event):
    """A click on (label 1) or beside (label 0) the object."""

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


class RemoveEvent(_Event):
    """The object is not wanted from this frame on."""

    type: Literal["remove"]


Event = Annotated[PointEvent | BoxEvent | RemoveEvent, Field(discriminator="type")]


class PromptLog(BaseModel):
    """All events of a session, in the order in which they were made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    events: tuple[Event, ...] = ()

    def at(self, frame: int) -> tuple[Event, ...]:
        """Events of one frame, in order."""
        return tuple(e for e in self.events if e.frame == frame)

    @property
    def frames(self) -> frozenset[int]:
        """Frames that have events."""
        return frozenset(e.frame for e in self.events)

    @property
    def last_object(self) -> int:
        """The greatest object id in use, 0 if there is none."""
        return max((e.object for e in self.events), default=0)

    def check_inside(self, size_hw: SizeHW) -> None:
        """Raise `PromptError` if a point or a box lies outside a picture of this size."""
        height, width = size_hw
        for event in self.events:
            if isinstance(event, PointEvent):
                x, y = event.xy
                inside = 0 <= x < width and 0 <= y < height
            elif isinstance(event, BoxEvent):
                x0, y0, x1, y1 = event.xyxy
                inside = x0 < width and y0 < height and x1 > 0 and y1 > 0
            else:
                inside = True
            if not inside:
                raise PromptError(
                    f"the {event.type} of object {event.object} on frame {event.frame} lies "
                    f"outside the picture of {width}x{height} pixels"
                )


NO_PROMPTS = PromptLog(version=1)


def load_prompts(file: Path) -> PromptLog:
    """Read a prompts file. Raises `PromptError` that names the line that is wrong."""
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
    try:
        return PromptLog.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        path = [part for part in problem["loc"] if part not in ("point", "box", "remove")]
        line = _line_of(text, path)
        place = ".".join(str(part) for part in path) or "the file"
        message = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
        raise PromptError(f"{file}, line {line}: {place}: {message}") from error


def _line_of(text: str, path: list[int | str]) -> int:
    """Line of the event that a validation error is about (1 if it is about the whole file)."""
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
