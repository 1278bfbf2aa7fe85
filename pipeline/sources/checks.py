"""What every reader watches for: pictures of absurd size, and damage."""

from __future__ import annotations

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.types import SizeHW, SourceReport

SIDE_MAX_PX = 16384
_MESSAGES_MAX = 5


def check_size(name: str, size_hw: SizeHW) -> None:
    """Refuse pictures larger than `SIDE_MAX_PX` a side.

    Raises:
        UnreadableSourceError: a side is longer.
    """
    height, width = size_hw
    if max(size_hw) > SIDE_MAX_PX:
        raise UnreadableSourceError(
            f"{name} has pictures of {width}x{height} pixels; scale it down to {SIDE_MAX_PX} "
            "pixels a side or fewer."
        )


def count_damage(report: SourceReport, sentence: str) -> None:
    """Count one damaged packet, frame or image, and keep the first few sentences for the user."""
    report.corrupt_packets += 1
    if len(report.messages) < _MESSAGES_MAX:
        report.messages.append(sentence)
