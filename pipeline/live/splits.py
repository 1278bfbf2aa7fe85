"""When a recording goes on in a new file: after a time, after a size, or both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.live_store import parse_duration

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT])B", re.IGNORECASE)
_BYTES = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, slots=True)
class Split:
    """Limits of one file: seconds and bytes; None: no limit."""

    after_s: float | None = None
    after_bytes: int | None = None

    def is_due(self, seconds: float, size: int) -> bool:
        """Whether a file that was begun so long ago and is so large, bytes, is full."""
        return (self.after_s is not None and seconds >= self.after_s) or (
            self.after_bytes is not None and size >= self.after_bytes
        )


NO_SPLIT = Split()


def parse_split(texts: Sequence[str]) -> Split:
    """Parse a time (`90`, `90s`, `10m`, `2h`) and a size (`500MB`, `2GB`), or one of them.

    Raises `ConfigError`.
    """
    seconds: float | None = None
    size: int | None = None
    for text in texts:
        found = _SIZE.fullmatch(text)
        if (size if found else seconds) is not None:
            raise ConfigError("--split takes one time and one size at most")
        if found:
            size = int(float(found[1]) * _BYTES[found[2].upper()])
        else:
            seconds = _seconds(text)
    if size == 0:
        raise ConfigError("--split takes a size above 0")
    return Split(seconds, size)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise ConfigError(
            f"--split takes a time such as 10m or a size such as 500MB, not '{text}'"
        ) from error
