"""Mask files of a session, named by content hash so that equal masks share a file."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import SourceError, StoreError
from maskstream.pipeline.sources.mask_images import read_label_map

BoolMap = npt.NDArray[np.bool_]
_KEPT = 64
_SET = 255


class MaskFiles:
    """Masks, bool [H, W], as PNG files in a folder; the last few are cached in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: OrderedDict[str, BoolMap] = OrderedDict()

    def put(self, mask: BoolMap) -> str:
        """Save a mask; return its name. Raises `StoreError`."""
        digest = hashlib.sha256(str(mask.shape).encode() + np.packbits(mask).tobytes())
        name = digest.hexdigest()[:20]
        file = self.path(name)
        if not file.is_file():
            encoded = cv2.imencode(
                ".png", mask.astype(np.uint8) * _SET, [cv2.IMWRITE_PNG_COMPRESSION, 1]
            )[1]
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                part = file.with_suffix(".part")
                part.write_bytes(encoded.tobytes())
                os.replace(part, file)
            except OSError as error:
                raise StoreError(
                    f"The mask cannot be saved in {self._folder}: {error.strerror}; is the disk "
                    "full?"
                ) from error
        self._remember(name, mask)
        return name

    def get(self, name: str) -> BoolMap:
        """Load the mask of this name. Raises `StoreError` if its file is missing."""
        if name not in self._kept:
            try:
                self._remember(name, read_label_map(self.path(name)) > 0)
            except SourceError as error:
                raise StoreError(f"A mask of this session is missing: {error}") from error
        return self._kept[name]

    def path(self, name: str) -> Path:
        """Path of a mask's file."""
        return self._folder / f"{name}.png"

    def _remember(self, name: str, mask: BoolMap) -> None:
        self._kept[name] = mask
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
