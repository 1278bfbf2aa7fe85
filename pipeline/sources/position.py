"""Positions in a source by frame index or time, and ranges of frames."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol, TypeVar

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.sources.timecode import Timecode

_HIGHEST_INDEX = 1 << 40  # where the number of frames is not known
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")
_RATE_MAX = 1000
_NTSC_ROUNDING = Fraction(6, 1000)
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


class Stamped(Protocol):
    """An item with frame index and timestamp: a `Frame`, or an image not read yet."""

    @property
    def index(self) -> int:
        """Frame index in the source."""
        ...

    @property
    def pts(self) -> int | None:
        """Presentation timestamp in `time_base` units, if there is one."""
        ...

    @property
    def time_base(self) -> Fraction:
        """Unit of `pts`, seconds."""
        ...


StampedT = TypeVar("StampedT", bound=Stamped)


def _time_s(item: Stamped) -> Fraction | None:
    return None if item.pts is None else item.pts * item.time_base


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a source.

    value: a frame index (int), seconds after the source's first frame (Fraction, exact), or a
    timecode, which becomes an index when the source is opened.
    """

    value: int | Fraction | Timecode

    def __post_init__(self) -> None:
        if not isinstance(self.value, Timecode) and self.value < 0:
            raise ConfigError(f"The position {self} is negative; positions count from 0.")

    def __str__(self) -> str:
        if isinstance(self.value, Fraction):
            return f"{float(self.value):g} s"
        return f"frame {self.value}" if isinstance(self.value, int) else f"timecode {self.value}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Parse `120` (a frame index), a time (`3.5s`, `1:05`, `00:00:03.5`) or a timecode.

        A timecode has frames after a colon or semicolon: `00:00:03:12`.

        Raises:
            ConfigError: the text is none of these.
        """
        stripped = text.strip()
        if stripped.isdecimal():
            return cls(int(stripped))
        if seconds := _SECONDS.fullmatch(stripped):
            return cls(Fraction(seconds[1]))
        if (timecode := Timecode.parse(stripped)) and stripped[-3] in ":;":
            return cls(timecode)
        if clock := _CLOCK.fullmatch(stripped):
            hours, minutes = int(clock[1] or 0), int(clock[2])
            return cls(3600 * hours + 60 * minutes + Fraction(clock[3]))
        raise ConfigError(
            f"{text!r} is not a position; write a frame number such as 120, a time such as 3.5s or "
            "00:00:03.5, or a timecode such as 00:00:03:12."
        )

    def reached_by(self, item: Stamped, origin_s: Fraction | None) -> bool:
        """Whether `item` is at or after this position; `origin_s`: time of the first frame.

        Raises:
            ConfigError: this is a time, and the source has no timestamps.
        """
        if isinstance(self.value, int):
            return item.index >= self.value
        if isinstance(self.value, Timecode):
            raise ConfigError(
                f"The {self} needs a frame rate, which the source does not have; give a frame "
                "number instead, or --fps for images."
            )
        if origin_s is None:
            raise ConfigError(
                f"The position {self} is a time, but the source has no timestamps; "
                "give a frame number instead."
            )
        time_s = _time_s(item)
        return time_s is not None and time_s - origin_s >= self.value

    def estimated_index(self, rate: Fraction | None) -> int | None:
        """Frame index of this position at a constant rate (frames/s); None if unknown."""
        if isinstance(self.value, int):
            return self.value
        if rate is None or isinstance(self.value, Timecode):
            return None
        return math.ceil(self.value * rate)

    def resolved(self, rate: Fraction | None, first: Timecode | None) -> Position:
        """A timecode as a frame index at `rate`; `first`: timecode of the first frame, if known.

        A timecode before that of the first frame is the time since the first frame.
        """
        if not isinstance(self.value, Timecode) or rate is None:
            return self
        count = self.value.count(rate)
        begins = 0 if first is None else first.count(rate)
        return Position(count - begins if count >= begins else count)


@dataclass(frozen=True, slots=True)
class FrameRange:
    """The frames from `start` to `end` (exclusive), every `stride`-th of them.

    Raises:
        ConfigError: the stride is below 1, or the end is not after the start.
    """

    start: Position | None = None
    end: Position | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ConfigError(f"The stride must be 1 or more, not {self.stride}.")
        if self.start is None or self.end is None:
            return
        start, end = self.start.value, self.end.value
        if isinstance(start, Timecode) or isinstance(end, Timecode):
            return
        if type(start) is type(end) and end <= start:
            raise ConfigError(f"The end ({self.end}) must lie after the start ({self.start}).")

    @classmethod
    def of(
        cls,
        start: Position | int | str | None = None,
        end: Position | int | str | None = None,
        stride: int = 1,
    ) -> FrameRange:
        """Build a range from positions, frame indices, or text for `Position.parse`.

        Raises:
            ConfigError: a position cannot be parsed, or the range is impossible.
        """
        return cls(_position(start), _position(end), stride)

    def select(self, items: Iterable[StampedT]) -> Iterator[StampedT]:
        """Yield the items in the range, in order, without reading past its end.

        Raises:
            ConfigError: the range holds none of the items, or needs timestamps they lack.
        """
        origin_s: Fraction | None = None
        started = self.start is None
        passed = 0
        for item in items:
            if origin_s is None:
                origin_s = _time_s(item)
            if self.end is not None and self.end.reached_by(item, origin_s):
                break
            started = started or (self.start is not None and self.start.reached_by(item, origin_s))
            if started:
                if passed % self.stride == 0:
                    yield item
                passed += 1
        if not passed:
            raise ConfigError(
                f"The source has no frame from {self.start or 'its start'} "
                f"to {self.end or 'its end'}."
            )

    def resolved(self, rate: Fraction | None, first: Timecode | None = None) -> FrameRange:
        """The range with frame indices for timecodes, see `Position.resolved`."""
        start, end = (p and p.resolved(rate, first) for p in (self.start, self.end))
        return replace(self, start=start, end=end)

    def indices(self, total: int | None) -> range | None:
        """Indices that frames can have of `total` frames, if known; None for ranges of time."""
        bounds = [0 if self.start is None else self.start.value]
        bounds.append(_HIGHEST_INDEX if self.end is None else self.end.value)
        start, end = (value if isinstance(value, int) else None for value in bounds)
        if start is None or end is None:
            return None
        return range(start, end if total is None else min(end, total), self.stride)

    def count(self, total: int | None, rate: Fraction | None) -> int | None:
        """Number of frames selected from `total` at `rate` (per second); None if unknown."""
        start = self.start.estimated_index(rate) if self.start else 0
        end = self.end.estimated_index(rate) if self.end else total
        if total is None or start is None or end is None:
            return None
        return len(range(start, min(end, total), self.stride))


def parse_rate(text: str) -> Fraction:
    """Parse frames per second: `24`, `24000/1001`, or `23.976`, which means the same.

    Raises `ConfigError`.
    """
    try:
        rate = _exact_rate(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= _RATE_MAX:
        raise ConfigError(
            f"{text!r} is no frame rate; write frames per second, such as 24 or 24000/1001."
        )
    return rate


def _exact_rate(rate: Fraction) -> Fraction:
    """Of a rounded rate of NTSC, such as 29.97, the exact one."""
    ntsc = Fraction(math.ceil(rate) * 1000, 1001)
    is_rounded = rate.denominator > 1 and abs(rate - ntsc) < _NTSC_ROUNDING
    return ntsc if is_rounded else rate


def _position(value: Position | int | str | None) -> Position | None:
    if value is None or isinstance(value, Position):
        return value
    return Position(value) if isinstance(value, int) else Position.parse(value)
