"""Mastering data of HDR video (SMPTE ST 2086, CTA-861.3), passed on to H.264 exports."""

from __future__ import annotations

import struct
from typing import Any

from av.sidedata.sidedata import Type as SideData

from maskstream.pipeline.sources.video_view import VideoView
from maskstream.pipeline.types import Frame

_CHROMATICITY, _LUMINANCE = 50000, 10000  # units of the bitstream: 1 / 50000, 1 / 10000 cd/m²


def x264_mastering(frame: Frame) -> str | None:
    """The frame's mastering display and light levels as x264 parameters; None if it has none."""
    if not isinstance(frame.view, VideoView):
        return None
    by_type: Any = frame.view.image.side_data
    found = []
    display = by_type.get(SideData.MASTERING_DISPLAY_METADATA)
    if display is not None:
        # AVMasteringDisplayMetadata: 10 rationals, then what is stated of them
        *numbers, has_primaries, has_luminance = struct.unpack("<22i", bytes(display)[:88])
        if has_primaries and has_luminance:
            unit = [_CHROMATICITY] * 8 + [_LUMINANCE] * 2
            values = [
                round(numbers[2 * n] * unit[n] / (numbers[2 * n + 1] or 1)) for n in range(10)
            ]
            red, green, blue, white = (values[n : n + 2] for n in (0, 2, 4, 6))
            points = (
                f"{name}({x},{y})"
                for name, (x, y) in zip(
                    ("G", "B", "R", "WP"), (green, blue, red, white), strict=True
                )
            )
            found.append(f"mastering-display={''.join(points)}L({values[9]},{values[8]})")
    light = by_type.get(SideData.CONTENT_LIGHT_LEVEL)
    if light is not None:
        most, average = struct.unpack("<2I", bytes(light)[:8])
        found.append(f"cll={most},{average}")
    return ":".join(found) or None
