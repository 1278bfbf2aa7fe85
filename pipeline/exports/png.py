"""PNG encoder for label maps and mattes: grayscale of 8 or 16 bits, or with a palette.

OpenCV cannot write palettes.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _INDEXED = 0, 3
_LEVEL = 4


def encode_png(pixels: npt.NDArray[Any], palette: bytes | None = None) -> bytes:
    """Encode uint8 or uint16 pixels [H, W]. palette: 256 RGB colors indexed by uint8 pixels."""
    height, width = pixels.shape
    depth = 8 * pixels.dtype.itemsize
    colors = _GRAY if palette is None else _INDEXED
    rows = np.zeros(
        (height, 1 + width * pixels.dtype.itemsize), np.uint8
    )  # column 0: filter type none
    rows[:, 1:] = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colors, 0, 0, 0))]
    if palette is not None:
        chunks.append((b"PLTE", palette))
    chunks += [(b"IDAT", zlib.compress(rows.tobytes(), _LEVEL)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def davis_palette() -> bytes:
    """The 256 colors of PASCAL VOC, which DAVIS and YouTube-VOS use: 1 is dark red, 2 green."""
    numbers = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((numbers >> channel & 1) << 7 - bit).astype(np.uint8)
        numbers >>= 3
    return colors.tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
