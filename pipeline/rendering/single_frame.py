"""Write single frames as PNG images: label maps or overlays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2

from maskstream.pipeline.errors import ConfigError, StoreError, StoreExistsError
from maskstream.pipeline.types import (
    LabelMap,
    RgbImage,
    SourceInfo,
)

_SUFFIX = ".png"


@dataclass(frozen=True, slots=True)
class ImageOutput:
    """Destination of frame images: a PNG file for one frame, or a folder of `000012.png`.

    Files get their names when they are finished.
    """

    path: Path

    def check(self, info: SourceInfo, *, overwrite: bool) -> None:
        """Check that the destination can be written and does not exist yet.

        Raises:
            ConfigError: it is neither PNG nor folder, or one file is to take several frames.
            StoreExistsError: the file exists, or the folder is not empty. StoreError: the
            destination cannot be read.
        """
        try:
            is_folder = self.path.is_dir()
            filled = any(self.path.iterdir()) if is_folder else self.path.exists()
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from error
        if self.path.suffix and not self._is_file and not is_folder:
            raise ConfigError(
                f"{self.path} cannot hold images: give a name that ends in {_SUFFIX} for "
                "one frame, or a folder (without a dot in its name) for several"
            )
        if self._is_file and info.frame_count != 1:
            raise ConfigError(
                f"{self.path} takes one image, but {info.name} may have more frames: give a "
                "folder, or choose one frame with --start and --end"
            )
        if filled and not overwrite:
            raise StoreExistsError(f"{self.path} already exists: replace it with --overwrite")

    def write(self, frame_index: int, pixels: RgbImage | LabelMap) -> None:
        """Write labels uint16 [H, W] or an image RGB uint8 [H, W, 3]. Raises `StoreError`."""
        file = self.path if self._is_file else self.path / f"{frame_index:06d}{_SUFFIX}"
        bgr = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        encoded = cv2.imencode(_SUFFIX, bgr)[1]
        part = file.with_name(f".{file.name}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(encoded.tobytes())
            os.replace(part, file)
        except OSError as error:
            raise StoreError(f"{file} cannot be written: {error.strerror}") from error

    @property
    def _is_file(self) -> bool:
        return self.path.suffix.lower() == _SUFFIX
