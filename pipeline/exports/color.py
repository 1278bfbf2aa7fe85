"""Conversion of frames to encoders' pixel formats, with the source's colors.

YUV stays YUV: a color matrix is applied only to drawn images, and to sources in RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from maskstream.pipeline.exports.edges import Alpha
from maskstream.pipeline.sources.video_view import ONE_THREAD, VideoView
from maskstream.pipeline.types import Frame, RgbImage, SizeHW

NOT_SAID = 2
# By matrix: luma weights of red and blue (ITU-T H.273, table 4).
_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_RGB_MATRIX = 0
_BT709 = 1
_HD_LINES = 720

Plane = npt.NDArray[Any]
"""One plane of an image, uint8 or uint16 [H, W], a view of its memory."""


@dataclass(frozen=True, slots=True)
class Color:
    """Color tags of a video: primaries, transfer, matrix as in ITU-T H.273; 2: unspecified.

    range: 1 limited, 2 full, 0 unspecified, which means limited.
    """

    matrix: int = _BT709
    primaries: int = _BT709
    transfer: int = _BT709
    range: int = int(ColorRange.MPEG)

    @classmethod
    def of(cls, image: VideoFrame, stream: Any) -> Color:
        """Read the tags of a decoded image, or else of its stream's codec context.

        RGB has no matrix; YUV made from it gets BT.709's.
        """
        matrix = _specified(int(image.colorspace), int(stream.colorspace))
        primaries = _specified(getattr(image, "color_primaries", NOT_SAID), stream.color_primaries)
        transfer = _specified(getattr(image, "color_trc", NOT_SAID), stream.color_trc)
        if _is_rgb(image) or matrix == _RGB_MATRIX:
            return cls(primaries=primaries, transfer=transfer)
        full = _is_full(image)
        said = int(image.color_range) or int(stream.color_range)
        return cls(matrix, primaries, transfer, int(ColorRange.JPEG) if full else said)

    def used_matrix(self, size_hw: SizeHW) -> int:
        """The matrix, or the one that players assume for this size if it is unspecified."""
        if self.matrix in _WEIGHTS:
            return self.matrix
        if self.matrix in (NOT_SAID, _RGB_MATRIX) and size_hw[0] >= _HD_LINES:
            return int(Colorspace.ITU709)
        return int(Colorspace.ITU601)

    def mark(self, image: VideoFrame) -> None:
        """Set the tags on an image, where encoders read them."""
        image.colorspace, image.color_range = self.matrix, self.range
        if hasattr(image, "color_trc"):  # PyAV 15 and later
            image.color_primaries, image.color_trc = self.primaries, self.transfer


def image_of(frame: Frame, pix_fmt: str, color: Color) -> VideoFrame:
    """Copy a source frame, as displayed, to a pixel format; an alpha plane is opaque.

    Planes are copied if the frame is neither rotated nor scaled and the plane sizes are equal.
    """
    view = frame.view
    if not isinstance(view, VideoView) or _is_rgb(view.image):
        return image_from(frame.rgb(), pix_fmt, color)
    if VideoFormat(pix_fmt).is_rgb:  # settled by an earlier frame in RGB
        return image_from(rgb_of(frame, color), pix_fmt, color)
    stored = view.image
    height, width = view.orientation.size_hw(frame.size_hw)
    if view.orientation.is_stored and (stored.height, stored.width) == (height, width):
        return _converted(stored, pix_fmt, color)
    deep = stored.format.components[0].bits > 8
    flat = _converted(
        stored, "yuv444p16le" if deep else "yuv444p", color, width=width, height=height
    )
    if not view.orientation.is_stored:
        turned = VideoFrame(frame.size_hw[1], frame.size_hw[0], flat.format.name)
        for source, target in zip(planes(flat), planes(turned), strict=True):
            target[:] = view.orientation.apply(source)
        turned.color_range = flat.color_range
        flat = turned
    return _converted(flat, pix_fmt, color)


def image_from(rgb: RgbImage, pix_fmt: str, color: Color) -> VideoFrame:
    """Convert RGB uint8 [H, W, 3] to a pixel format."""
    height, width, _ = rgb.shape
    if VideoFormat(pix_fmt).is_rgb:
        whole = VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        return VideoReformatter().reformat(whole, format=pix_fmt, **ONE_THREAD)
    bits = VideoFormat(pix_fmt).components[0].bits
    affine = np.linalg.inv(_to_rgb(color, (height, width), bits))[:3]
    yuv = np.rint(cv2.transform(rgb.astype(np.float32) / 255, affine))
    made = VideoFrame(width, height, _full_chroma(bits))
    for i, plane in enumerate(planes(made)):
        plane[:] = np.clip(yuv[..., i], 0, (1 << bits) - 1)
    color.mark(made)
    return _converted(made, pix_fmt, color)


def rgb_of(frame: Frame, color: Color, bits: int = 8) -> npt.NDArray[Any]:
    """Convert a source frame, as displayed, to RGB uint8 or uint16 [H, W, 3].

    Not by swscale, which is up to three 8-bit levels too dark. RGB sources have 8 bits.
    """
    view = frame.view
    if not isinstance(view, VideoView) or _is_rgb(view.image):
        rgb = frame.rgb()
        return rgb if bits == 8 else rgb.astype(np.uint16) * 257
    depth = view.image.format.components[0].bits
    image = image_of(frame, _full_chroma(depth), color)
    yuv = cv2.merge([plane.astype(np.float32) for plane in planes(image)])
    mixed = cv2.transform(yuv, _to_rgb(color, frame.size_hw, depth)[:3])
    return levels(np.clip(mixed, 0, 1), bits)


def planes(image: VideoFrame) -> list[Plane]:
    """Writable views of the planes of a planar image."""
    bits = image.format.components[0].bits
    dtype = np.dtype(np.uint8 if bits <= 8 else "<u2")
    found = []
    for plane in image.planes:
        values = np.frombuffer(plane, dtype)  # type: ignore[call-overload]
        rows = values.reshape(-1, plane.line_size // dtype.itemsize)
        found.append(rows[: plane.height, : plane.width])
    return found


def levels(alpha: Alpha, bits: int) -> Plane:
    """Convert opacity 0 to 1 to integers of this many bits, uint8 or uint16."""
    return np.rint(alpha * ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def blend(image: VideoFrame, ground: VideoFrame, alpha: Alpha) -> VideoFrame:
    """Blend `image` over `ground` in place by alpha [H, W]; both of the same planar format."""
    for over, under in zip(planes(image), planes(ground), strict=True):
        part = resize_alpha(alpha, over)
        over[:] = np.rint(under + (over.astype(np.float32) - under) * part)
    return image


def resize_alpha(alpha: Alpha, plane: Plane) -> Alpha:
    """Resize opacity to the size of a plane."""
    if alpha.shape == plane.shape:
        return alpha
    size = plane.shape[1], plane.shape[0]
    return np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), np.float32)


def alpha_format(frame: Frame) -> str:
    """Choose FFV1's pixel format with alpha that keeps the source's planes unchanged.

    With an odd height or width FFV1's slices need chroma at full size.
    """
    view = frame.view
    if not isinstance(view, VideoView) or _is_rgb(view.image):
        return "bgra"
    stored: VideoFormat = view.image.format
    bits = stored.components[0].bits
    depth = "" if bits <= 8 else "10le" if bits <= 10 else "16le"
    height, width = view.image.height, view.image.width
    plain = view.orientation.is_stored and (height, width) == frame.size_hw
    plain = plain and not (height | width) % 2
    for sampling in ("420", "422"):
        if plain and stored.name.removesuffix("le") in _planar(sampling):
            return f"yuva{sampling}p{depth}"
    return f"yuva444p{depth}"


def _planar(sampling: str) -> set[str]:
    names = {f"yuv{sampling}p", f"yuvj{sampling}p", f"yuva{sampling}p"}
    deep = (9, 10, 12, 14, 16)
    return names | {f"yuv{alpha}{sampling}p{bits}" for alpha in ("", "a") for bits in deep}


def _is_rgb(image: VideoFrame) -> bool:
    return image.format.is_rgb or image.format.has_palette


def _full_chroma(bits: int) -> str:
    return "yuv444p" if bits <= 8 else f"yuv444p{bits}le"


def _to_rgb(color: Color, size_hw: SizeHW, bits: int) -> npt.NDArray[np.float64]:
    """Affine matrix [4, 4] from Y, Cb, Cr of this many bits to RGB in 0..1 (ITU-T H.273, 8.3)."""
    red, blue = _WEIGHTS[color.used_matrix(size_hw)]
    green = 1 - red - blue
    luma = np.array([red, green, blue])
    mix = np.array([luma, ([0, 0, 1] - luma) / (2 - 2 * blue), ([1, 0, 0] - luma) / (2 - 2 * red)])
    most, step = (1 << bits) - 1, 1 << (bits - 8)
    is_full = color.range == int(ColorRange.JPEG)
    black, luma_span, chroma_span = (
        (0, most, most) if is_full else (16 * step, 219 * step, 224 * step)
    )
    made = np.eye(4)
    made[:3, :3] = np.diag([luma_span, chroma_span, chroma_span]) @ mix
    made[:3, 3] = black, 128 * step, 128 * step
    return np.asarray(np.linalg.inv(made), np.float64)


def _converted(
    image: VideoFrame,
    pix_fmt: str,
    color: Color,
    *,
    width: int | None = None,
    height: int | None = None,
) -> VideoFrame:
    """Convert YUV to YUV with the same matrix on both sides, so that swscale only copies."""
    made = VideoReformatter().reformat(
        image,
        width=width,
        height=height,
        format=pix_fmt,
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=_range_of(image),
        dst_color_range=color.range or ColorRange.MPEG,
        **ONE_THREAD,
    )
    if made is image:  # still the decoder's own buffer, which it reads later
        made = VideoFrame(image.width, image.height, pix_fmt)
        for source, target in zip(planes(image), planes(made), strict=True):
            target[:] = source
    if _is_gray(image) and not _is_gray(made):  # swscale rounds neutral chroma down
        for plane, component in zip(planes(made)[1:3], made.format.components[1:3], strict=True):
            plane[:] = 1 << (component.bits - 1)
    color.mark(made)
    return made


def _is_gray(image: VideoFrame) -> bool:
    return image.format.name.startswith(("gray", "ya8", "ya16"))


def _range_of(image: VideoFrame) -> int:
    return int(ColorRange.JPEG if _is_full(image) else ColorRange.MPEG)


def _is_full(image: VideoFrame) -> bool:
    jpeg = image.format.name.startswith("yuvj")
    return jpeg or int(image.color_range) == int(ColorRange.JPEG)


def _specified(first: int, second: int) -> int:
    return second if first in (NOT_SAID, 0) and second != 0 else first
