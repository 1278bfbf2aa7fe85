"""Sink that writes evenly spaced frames with their masks as one image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.rendering.draw import draw, draw_tag, scaled
from maskstream.pipeline.types import Frame, FrameResult, RgbImage

_SHEET_WIDTH = 1920
_GAP = 6


class ContactSheet:
    """A sink that keeps about `count` evenly spread frames and writes them as one PNG.

    The stream's length need not be known: when `2 * count` frames are kept, every other one is
    dropped and the sampling step doubles. Raises `StoreError`.
    """

    def __init__(self, path: Path, count: int = 12, columns: int = 3) -> None:
        self._path = path
        self._count = count
        self._columns = columns
        self._kept: list[RgbImage] = []
        self._step = 1
        self._seen = 0

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Keep the frame if it is one of the evenly spread ones."""
        if self._seen % self._step == 0:
            self._kept.append(self._tile(frame, result))
            if len(self._kept) >= 2 * self._count:
                self._kept = self._kept[::2]
                self._step *= 2
        self._seen += 1

    def idle(self) -> None:
        """Does nothing: the file is written at the end."""

    def close(self, *, complete: bool) -> None:
        """Write the sheet; nothing if there were no frames."""
        if not self._kept:
            return
        chosen = np.linspace(0, len(self._kept) - 1, min(self._count, len(self._kept)))
        tiles = [self._kept[round(i)] for i in chosen]
        write_sheet(self._path, tiles, self._columns)

    def _tile(self, frame: Frame, result: FrameResult) -> RgbImage:
        height, width = result.labels.shape
        tile_w = (_SHEET_WIDTH - _GAP * (self._columns + 1)) // self._columns
        size_hw = (max(1, round(height * tile_w / width)), tile_w)
        tile = draw(frame.rgb(size_hw), scaled(result, size_hw))
        when = "" if result.pts_s is None else f"  {result.pts_s:.2f} s"
        draw_tag(tile, (0, 0), f"frame {result.index}{when}", (0, 0, 0))
        return tile


def write_sheet(path: Path, tiles: Sequence[RgbImage], columns: int) -> None:
    """Write equally sized images as one, row by row; JPEG if the path ends in .jpg, else PNG.

    Raises `StoreError`.
    """
    form = ".jpg" if path.suffix == ".jpg" else ".png"
    height, width, _ = tiles[0].shape
    rows = -(-len(tiles) // columns)
    sheet = np.full(
        (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 24, np.uint8
    )
    for i, tile in enumerate(tiles):
        y = _GAP + i // columns * (height + _GAP)
        x = _GAP + i % columns * (width + _GAP)
        sheet[y : y + height, x : x + width] = tile
    encoded = cv2.imencode(form, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(encoded.tobytes())
        os.replace(part, path)
    except OSError as error:
        raise StoreError(
            f"The contact sheet {path} cannot be written: {error.strerror}."
        ) from error
