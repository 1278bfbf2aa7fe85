"""Commands to a running live session: add an object by point or box, remove one, reset."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskstream.pipeline.config import describe
from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.prompts import (
    MAX_OBJECT_ID,
    BoxEvent,
    Event,
    PointEvent,
    PromptLog,
    RemoveEvent,
)
from maskstream.pipeline.types import SizeHW

_MAX_WAITING = 256


class Command(BaseModel):
    """One command, as a JSON object.

    object: object id; a point or box without one creates a new object. xy, xyxy: pixels of the
    displayed frame. label: 1 on, 0 beside the object. pts_s, captured_s: which frame the command
    refers to, seconds, by timestamp (a result's `pts_s`) or by capture clock (`captured_s`);
    without either it is the newest frame.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["point", "box", "remove", "reset"]
    object: int | None = Field(None, ge=1, le=MAX_OBJECT_ID)
    xy: tuple[float, float] | None = None
    xyxy: tuple[float, float, float, float] | None = None
    label: Literal[0, 1] = 1
    pts_s: float | None = Field(None, allow_inf_nan=False)
    captured_s: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _is_whole(self) -> Command:
        needed = {"point": ("xy",), "box": ("xyxy",), "remove": ("object",)}.get(self.type, ())
        for key in needed:
            if getattr(self, key) is None:
                raise ValueError(f"a {self.type} needs '{key}'")
        return self

    def event(self, frame: int, object_id: int) -> Event:
        """Convert to an event of the prompt log."""
        common: dict[str, Any] = {"frame": frame, "object": object_id}
        if self.type == "point":
            return PointEvent(type="point", xy=self.xy or (0, 0), label=self.label, **common)
        if self.type == "box":
            return BoxEvent(type="box", xyxy=self.xyxy or (0, 0, 0, 0), **common)
        return RemoveEvent(type="remove", **common)

    def check_inside(self, size_hw: SizeHW) -> None:
        """Raise `PromptError` if the prompt lies outside an image of this size, or is empty."""
        try:
            log = PromptLog(version=1, events=(self.event(0, self.object or 1),))
        except ValidationError as error:
            raise PromptError(describe(error, what=f"the {self.type}")) from error
        try:
            log.check_inside(size_hw)
        except PromptError as error:
            height, width = size_hw
            raise PromptError(
                f"the {self.type} lies outside the image of {width}x{height} pixels"
            ) from error


def parse_command(text: str | bytes) -> Command:
    """Parse a command from a line of JSON. Raises `PromptError` if it is malformed."""
    try:
        return Command.model_validate(json.loads(text))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PromptError(f"a command is one line of JSON: {error}") from error
    except ValidationError as error:
        problems = describe(error).partition(": ")[2]
        raise PromptError(f"the command is wrong: {problems}") from error


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a command. object: object id. refused: why nothing was done; "" if it was done."""

    object: int | None = None
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        answer = {"type": "answer", "object": self.object}
        return answer | ({"error": self.refused} if self.refused else {"ok": True})


@dataclass(frozen=True, slots=True)
class PendingCommand:
    """A command and the callback for its outcome, which may be called in any thread."""

    command: Command
    answer: Callable[[Outcome], None] = lambda outcome: None


TakeCommand = Callable[[PendingCommand], None]
"""Callback that receives the commands of a channel."""


class CommandQueue:
    """Bounded, thread-safe queue of commands; commands beyond the bound are refused."""

    def __init__(self) -> None:
        self._waiting: deque[PendingCommand] = deque()

    def put(self, pending: PendingCommand) -> None:
        """Enqueue a command, or refuse it if the queue is full."""
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(pending)
        else:
            reason = f"{_MAX_WAITING} commands are waiting already; try again when frames arrive"
            pending.answer(Outcome(pending.command.object, reason))

    def take(self) -> list[PendingCommand]:
        """Remove and return all queued commands."""
        taken = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        return taken
