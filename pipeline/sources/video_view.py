"""Pixels of a decoded video frame, converted at the size that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from maskstream.pipeline.sources.arrays import resized
from maskstream.pipeline.sources.orientation import AS_STORED, Orientation
from maskstream.pipeline.types import GrayImage, RgbImage, SizeHW

# For every `reformat`. From PyAV 17 on swscale uses all cores by default, and with several threads
# it sometimes computes wrong pixels (FFmpeg 8: to 10 bits, at an odd height).
ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


@dataclass(frozen=True, slots=True)
class VideoView:
    """A `PixelView` that converts a decoded frame directly to the requested size.

    orientation: of the displayed image.
    """

    image: VideoFrame
    orientation: Orientation = AS_STORED

    def rgb(self, size_hw: SizeHW) -> RgbImage:
        """RGB uint8 [H, W, 3] of the displayed image at `size_hw`."""
        return self._displayed(size_hw, "rgb24")

    def gray(self, size_hw: SizeHW) -> GrayImage:
        """Full-range luma uint8 [H, W] of the displayed image at `size_hw`."""
        return self._displayed(size_hw, "gray")

    def _displayed(self, size_hw: SizeHW, pixel_format: str) -> RgbImage:
        stored = _scaled(self.image, self.orientation.size_hw(size_hw), pixel_format)
        if self.orientation.is_stored:
            return np.array(stored, order="C")  # `stored` may share the decoder's memory
        return self.orientation.apply(stored)


def _scaled(image: VideoFrame, size_hw: SizeHW, pixel_format: str) -> RgbImage:
    try:
        return _converted(image, size_hw, pixel_format)
    except av.error.FFmpegError:  # swscale cannot enlarge a line to thousands of pixels
        return resized(_converted(image, (image.height, image.width), pixel_format), size_hw)


def _converted(image: VideoFrame, size_hw: SizeHW, pixel_format: str) -> RgbImage:
    """Scale and convert by swscale; the result may share memory with `image`."""
    height, width = size_hw
    shrinks = height <= image.height and width <= image.width
    # With the same matrix on both sides swscale copies the luma; otherwise it converts through RGB.
    matrix = Colorspace.ITU601 if pixel_format == "gray" else None
    # A new reformatter, because the one that PyAV 18 keeps on a frame holds megabytes.
    converted = VideoReformatter().reformat(
        image,
        width=width,
        height=height,
        format=pixel_format,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        interpolation=Interpolation.AREA if shrinks else Interpolation.BILINEAR,
        src_color_range=image.color_range,
        dst_color_range=ColorRange.JPEG,
        **ONE_THREAD,
    )
    return np.asarray(converted.to_ndarray(), np.uint8)
