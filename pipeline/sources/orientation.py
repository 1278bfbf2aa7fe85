"""Orientation of pictures: from stored to displayed, by the display matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideData
from av.video.frame import VideoFrame

from maskstream.pipeline.types import SizeHW

_PixelT = TypeVar("_PixelT", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight orientations: first rows and columns are swapped, then the image is flipped.

    flip_x: left to right. flip_y: top to bottom.
    """

    swap: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, picture: VideoFrame) -> Orientation:
        """Read the display matrix of a decoded picture, as FFmpeg's `-autorotate` does.

        Angles between the right ones are rounded to them.
        """
        by_type: Any = picture.side_data
        stated = by_type.get(SideData.DISPLAYMATRIX)
        if stated is None:
            return cls()
        # x' = a x + c y, y' = b x + d y (16.16 fixed point)
        a, b, _, c, d = np.frombuffer(bytes(stated), np.int32)[:5].tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(swap=True, flip_x=c < 0, flip_y=b < 0)
        return cls(flip_x=a < 0, flip_y=d < 0)

    @property
    def is_stored(self) -> bool:
        """Whether the image is displayed as it is stored."""
        return not (self.swap or self.flip_x or self.flip_y)

    @property
    def mirrored(self) -> bool:
        """Whether the image is mirrored, not only rotated."""
        return self.swap ^ self.flip_x ^ self.flip_y

    @property
    def rotation_deg(self) -> int:
        """Counterclockwise rotation, before a mirrored image is flipped left to right."""
        flip_x = self.flip_x ^ self.mirrored
        if self.swap:
            return 270 if flip_x else 90
        return 180 if flip_x else 0

    def size_hw(self, size_hw: SizeHW) -> SizeHW:
        """The displayed size of a stored one, and the other way round."""
        return size_hw[::-1] if self.swap else size_hw

    def apply(self, image: npt.NDArray[_PixelT]) -> npt.NDArray[_PixelT]:
        """The displayed image of a stored one [H, W] or [H, W, C]."""
        made: Any = image
        if self.swap:
            made = cv2.transpose(made)
        if self.flip_x or self.flip_y:
            made = cv2.flip(made, {(1, 0): 1, (0, 1): 0, (1, 1): -1}[self.flip_x, self.flip_y])
        return np.asarray(made, image.dtype)


AS_STORED = Orientation()
