"""Commands to a running live session: points, boxes, detections, removal, reset."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.config import describe
from maskstream.pipeline.detectors.detector import DetectedBox
from maskstream.pipeline.detectors.given import GivenBox
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
_MAX_BYTES = 16384  # of a command; it also bounds the depth and the length of numbers
_MAX_DETECTIONS = 100  # in a command
_MAX_PER_SECOND = 100  # of a channel or a client
_MAX_ID = 128  # characters
_MAX_REASON = 300  # characters

RUN_ENDED = "the run has ended"
"""Why a command is refused that was not executed in time."""


_Id = (
    Annotated[str, Field(max_length=_MAX_ID)] | Annotated[int, Field(ge=-(2**63), lt=2**63)] | None
)


class Command(BaseModel):
    """One command, as a JSON object.

    id: the sender's name for the command, which the answer repeats. object: object id; a point or
    box without one creates a new object. xy, xyxy: pixels of the displayed frame. label: 1 on, 0
    beside the object. pts_s, captured_s, stamp_s: which frame the command refers to, seconds, by
    timestamp (a result's `pts_s`), by capture clock (`captured_s`) or by the stamp in the headers
    of messages (`Headers`); without any it is the newest frame.
    detections: what a detector found on the frame, which is matched with all objects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    id: _Id = None
    type: Literal["point", "box", "detections", "remove", "reset"]
    object: int | None = Field(None, ge=1, le=MAX_OBJECT_ID)
    xy: tuple[float, float] | None = None
    xyxy: tuple[float, float, float, float] | None = None
    label: Literal[0, 1] = 1
    detections: tuple[GivenBox, ...] | None = Field(None, max_length=_MAX_DETECTIONS)
    pts_s: float | None = None
    captured_s: float | None = None
    stamp_s: float | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Command:
        key = {"point": "xy", "box": "xyxy", "remove": "object"}.get(self.type)
        if key is not None and getattr(self, key) is None:
            raise ValueError(f"a {self.type} needs '{key}'")
        if (self.type == "detections") != (self.detections is not None):
            raise ValueError("the type 'detections' and the key 'detections' need each other")
        return self

    def event(self, frame: int, object_id: int) -> Event:
        """Convert to an event of the prompt log."""
        common: dict[str, Any] = {"frame": frame, "object": object_id}
        if self.type == "point":
            return PointEvent(type="point", xy=self.xy or (0, 0), label=self.label, **common)
        if self.type == "box":
            return BoxEvent(type="box", xyxy=self.xyxy or (0, 0, 0, 0), **common)
        return RemoveEvent(type="remove", **common)

    def detected(self, size_hw: SizeHW) -> list[DetectedBox]:
        """The detections on an image of this size. Raises `PromptError` if one is malformed."""
        try:
            return [each.detected(size_hw) for each in self.detections or ()]
        except (ValueError, TypeError) as error:
            raise PromptError(f"the detections are wrong: {error}") from error

    def check_inside(self, size_hw: SizeHW) -> None:
        """Raise `PromptError` if the prompt lies outside an image of this size, or is empty."""
        if self.detections is not None:
            self.detected(size_hw)
            return
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


CommandId = str | int | None


def parse_command(text: str | bytes) -> Command:
    """Parse a command from a line of JSON. Raises `PromptError` if it is malformed."""
    return _command_of(_values_of(text))


def _values_of(text: str | bytes) -> Any:
    if len(text) > _MAX_BYTES:
        raise PromptError(f"a command has at most {_MAX_BYTES} bytes")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise PromptError("a command is one line of JSON: it is nested too deeply") from error
    except ValueError as error:  # also numbers of thousands of digits, and bytes that are no text
        reason = str(error)[:_MAX_REASON]
        raise PromptError(f"a command is one line of JSON: {reason}") from error


def _command_of(values: Any) -> Command:
    try:
        return Command.model_validate(values)
    except ValidationError as error:
        problems = describe(error).partition(": ")[2][:_MAX_REASON]
        raise PromptError(f"the command is wrong: {problems}") from error


def _id_of(values: Any) -> CommandId:
    """The correlation id of what may not be a command."""
    given = values.get("id") if isinstance(values, dict) else None
    is_id = isinstance(given, str | int) and not isinstance(given, bool)
    return given if is_id and len(str(given)) <= _MAX_ID else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a command.

    object: object id. refused: why nothing was done; "" if it was done. id: the command's own.
    """

    object: int | None = None
    refused: str = ""
    id: CommandId = None

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values; `id` only if the command had one."""
        answer: dict[str, Any] = {"type": "answer", "object": self.object}
        if self.id is not None:
            answer["id"] = self.id
        return answer | ({"error": self.refused} if self.refused else {"ok": True})


@dataclass(frozen=True, slots=True)
class PendingCommand:
    """A command and the callback for its outcome, which may be called in any thread."""

    command: Command
    answer: Callable[[Outcome], None] = lambda outcome: None


TakeCommand = Callable[[PendingCommand], None]
"""Callback that receives the commands of a channel."""


class CommandIntake:
    """Receives the commands of one channel or client as text, and answers every one of them.

    What cannot be read, comes too fast or is too long is refused; nothing that a client sends
    raises. The answer has the command's `id`.
    """

    def __init__(self, take: TakeCommand, clock: Clock = SYSTEM_CLOCK) -> None:
        self._take = take
        self._clock = clock
        self._recent: deque[float] = deque(maxlen=_MAX_PER_SECOND)

    def receive(
        self, text: str | bytes, answer: Callable[[Outcome], None], *, usual_type: str = ""
    ) -> None:
        """Pass a command on; `answer` is called once with its outcome, in any thread.

        usual_type: of commands that state none.
        """
        named: CommandId = None
        try:
            values = _values_of(text)
            named = _id_of(values)
            if usual_type and isinstance(values, dict):
                values.setdefault("type", usual_type)
            self._check_rate()
            command = _command_of(values)
        except PromptError as error:
            answer(Outcome(refused=str(error), id=named))
            return
        self._take(PendingCommand(command, lambda outcome: answer(replace(outcome, id=named))))

    def _check_rate(self) -> None:
        now = self._clock.monotonic()
        if len(self._recent) == _MAX_PER_SECOND and now - self._recent[0] < 1:
            raise PromptError(f"more than {_MAX_PER_SECOND} commands came in a second; send fewer")
        self._recent.append(now)


class CommandQueue:
    """Bounded, thread-safe queue of commands; those beyond the bound or its end are refused."""

    def __init__(self) -> None:
        self._waiting: deque[PendingCommand] = deque()
        self._lock = threading.Lock()
        self._ended = False

    def put(self, pending: PendingCommand) -> None:
        """Enqueue a command, or refuse it if the queue is full or has ended."""
        with self._lock:
            reason = RUN_ENDED if self._ended else ""
            if not reason and len(self._waiting) >= _MAX_WAITING:
                reason = f"{_MAX_WAITING} commands wait already; try again when frames arrive"
            if not reason:
                self._waiting.append(pending)
        if reason:
            pending.answer(Outcome(pending.command.object, reason))

    def take(self) -> list[PendingCommand]:
        """Remove and return all queued commands."""
        with self._lock:
            taken = list(self._waiting)
            self._waiting.clear()
        return taken

    def end(self) -> None:
        """Refuse all queued commands and all that come from now on."""
        with self._lock:
            self._ended = True
        for pending in self.take():
            pending.answer(Outcome(pending.command.object, RUN_ENDED))
