"""SMPTE timecodes: read from a source, and advanced to the first frame of an export."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from maskstream.pipeline.sources.video import open_container

_TIMECODE = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})([:;.])(\d{2,3})")
_DROPPED_A_MINUTE = {30: 2, 60: 4}  # numbers left out in drop-frame timecode, by nominal rate


def timecode_of(video: Path) -> str | None:
    """The timecode that a file states for its first frame, from a track or a tag."""
    with open_container(video) as container:
        tagged = [*container.streams.video, *container.streams.data]
        for metadata in (*(stream.metadata for stream in tagged), container.metadata):
            for key, value in metadata.items():
                if key.lower() == "timecode" and _TIMECODE.fullmatch(value):
                    return str(value)
    return None


def advanced(timecode: str, frames: int, rate: Fraction) -> str:
    """The timecode so many frames later, at `rate` frames per second.

    Drop-frame timecodes (with a semicolon) leave out two numbers a minute, but not every tenth.
    """
    found = _TIMECODE.fullmatch(timecode)
    if found is None:
        raise ValueError(f"{timecode!r} is no timecode")
    nominal = max(1, round(rate))
    dropped = _DROPPED_A_MINUTE.get(nominal, 0) if found[4] != ":" else 0
    hours, minutes, seconds, frame = (int(found[group]) for group in (1, 2, 3, 5))
    whole_minutes = 60 * hours + minutes
    count = (60 * whole_minutes + seconds) * nominal + frame
    count += frames - dropped * (whole_minutes - whole_minutes // 10)
    if dropped:
        in_ten = 600 * nominal - 9 * dropped
        tens, rest = divmod(count, in_ten)
        minutes_in = max(0, rest - dropped) // (60 * nominal - dropped)
        count += dropped * (9 * tens + min(minutes_in, 9))
    seconds, frame = divmod(count, nominal)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours % 24:02}:{minutes:02}:{seconds:02}{found[4]}{frame:02}"
