"""SMPTE timecodes: hours, minutes, seconds and frames of a nominal rate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from av.container import InputContainer

_TEXT = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})([:;.])(\d{2,3})")
_DROPPED_A_MINUTE = {30: 2, 60: 4}  # numbers left out in drop-frame timecode, by nominal rate


@dataclass(frozen=True, slots=True)
class Timecode:
    """A timecode; `drop`: numbers are left out to keep up with the clock (NTSC), as `;` says."""

    hours: int
    minutes: int
    seconds: int
    frames: int
    drop: bool = False

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse `01:02:03:04` or, with dropped numbers, `01:02:03;04`; None if it is neither."""
        found = _TEXT.fullmatch(text.strip())
        if found is None or (found[4] == "." and len(found[5]) != 2):
            return None
        hours, minutes, seconds, frames = (int(found[group]) for group in (1, 2, 3, 5))
        return cls(hours, minutes, seconds, frames, drop=found[4] != ":")

    def __str__(self) -> str:
        separator = ";" if self.drop else ":"
        whole = f"{self.hours:02}:{self.minutes:02}:{self.seconds:02}"
        return f"{whole}{separator}{self.frames:02}"

    def count(self, rate: Fraction) -> int:
        """Number of frames since 00:00:00:00, at `rate` frames per second."""
        nominal, dropped = self._numbering(rate)
        minutes = 60 * self.hours + self.minutes
        count = (60 * minutes + self.seconds) * nominal + self.frames
        return count - dropped * (minutes - minutes // 10)

    def advanced(self, frames: int, rate: Fraction) -> Self:
        """The timecode so many frames later, at `rate` frames per second."""
        nominal, dropped = self._numbering(rate)
        count = self.count(rate) + frames
        if dropped:  # two numbers a minute, but not every tenth
            tens, rest = divmod(count, 600 * nominal - 9 * dropped)
            minutes_in = max(0, rest - dropped) // (60 * nominal - dropped)
            count += dropped * (9 * tens + min(minutes_in, 9))
        seconds, left = divmod(count, nominal)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return type(self)(hours % 24, minutes, seconds, left, self.drop)

    def _numbering(self, rate: Fraction) -> tuple[int, int]:
        """Numbers a second, and numbers dropped a minute."""
        nominal = max(1, round(rate))
        return nominal, _DROPPED_A_MINUTE.get(nominal, 0) if self.drop else 0


def timecode_of(container: InputContainer) -> Timecode | None:
    """The timecode that a file states for its first frame, in a track or a tag."""
    tagged = [*container.streams.video, *container.streams.data]
    for metadata in (*(stream.metadata for stream in tagged), container.metadata):
        for key, value in metadata.items():
            if key.lower() == "timecode" and (found := Timecode.parse(value)):
                return found
    return None
