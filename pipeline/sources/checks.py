"""Checks shared by all readers: image size, and counting of damaged packets."""

from __future__ import annotations

from pathlib import Path

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.types import SizeHW, SourceReport

SIDE_MAX_PX = 16384
_MESSAGES_MAX = 5


def check_size(name: str, size_hw: SizeHW) -> None:
    """Check that an image's sides are at most `SIDE_MAX_PX`.

    Raises:
        UnreadableSourceError: a side is longer.
    """
    height, width = size_hw
    if max(size_hw) > SIDE_MAX_PX:
        raise UnreadableSourceError(
            f"{name} has images of {width}x{height} pixels; scale it down to {SIDE_MAX_PX} "
            "pixels per side or fewer."
        )


def count_damage(report: SourceReport, message: str) -> None:
    """Count one damaged packet, frame or image; the first few messages are kept for the user."""
    report.corrupt_packets += 1
    if len(report.messages) < _MESSAGES_MAX:
        report.messages.append(message)


def not_permitted(path: Path) -> str:
    """The message for a file or folder that this user may not read."""
    return f"{path} cannot be read: permission denied; change its permissions, or copy it."
