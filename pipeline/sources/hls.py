"""Length of the segments of an HLS stream, which its playlist states (RFC 8216)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urljoin

import av
import av.error

_SEGMENT = re.compile(rb"#EXT(?:-X-TARGETDURATION|INF):\s*([\d.]+)")
_VARIANT = re.compile(rb"#EXT-X-STREAM-INF:[^\r\n]*[\r\n]+([^#\s][^\r\n]*)")
_MAX_BYTES = 2**20  # of a playlist


def longest_segment_s(target: str, options: Mapping[str, str], timeout_s: float) -> float:
    """The longest segment that a playlist states, seconds; of several variants, in the first one.

    options: of FFmpeg. timeout_s: for the answer. 0 if it states none, or cannot be read.
    """
    playlist = _read(target, options, timeout_s)
    variant = _VARIANT.search(playlist)
    if variant is not None:
        address = urljoin(target, variant[1].decode(errors="replace").strip())
        playlist = _read(address, options, timeout_s)
    return max((float(length) for length in _SEGMENT.findall(playlist)), default=0.0)


def _read(target: str, options: Mapping[str, str], timeout_s: float) -> bytes:
    """What is at an address, read by FFmpeg, with its options for headers and logins."""
    read = b""
    with (
        suppress(av.error.FFmpegError, OSError, ValueError),
        av.open(target, format="data", options=dict(options), timeout=timeout_s) as container,
    ):
        for packet in container.demux(container.streams[0]):
            read += bytes(packet)
            if len(read) > _MAX_BYTES:
                break
    return read
