"""Canvases: render the frames of exported videos, and compare them with what is read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
from av.video.frame import VideoFrame

from maskstream.pipeline.exports.backgrounds import GREEN_SCREEN, Background, StaticBackground
from maskstream.pipeline.exports.color import (
    Color,
    Plane,
    alpha_format,
    blend,
    image_from,
    image_of,
    levels,
    planes,
    rgb_of,
)
from maskstream.pipeline.exports.edges import Alpha
from maskstream.pipeline.exports.shots import Shot
from maskstream.pipeline.rendering.draw import draw
from maskstream.pipeline.types import Frame, FrameResult
from maskstream.trackers.iou import mask_iou

_BT709, _LIKE_BT709 = 1, (6, 14, 15)
_OPAQUE = 0.5
_UNSURE = 0.15  # opacity this close to one half may change sides in a lossy codec
_TOLERANCE = 0.1  # of luma, 0 to 1


class Canvas(Protocol):
    """Renders the frames of one kind of video.

    each: whether a matte per object is needed, rather than one for all together.
    """

    each: bool

    def color(self, source: Color) -> Color:
        """Color tags of the written frames."""
        ...

    def paint(self, shot: Shot, color: Color) -> VideoFrame:
        """Render the frame to be encoded."""
        ...

    def similarity(self, read: VideoFrame, painted: VideoFrame, shot: Shot) -> float:
        """Similarity of the decoded frame to the painted one, 0 to 1."""
        ...


class CutOut:
    """The frame with straight alpha; colors under transparent pixels are unchanged.

    pix_fmt: returns the pixel format for a source frame. prores: the codec has no full range, and
    only one of the names of BT.709's transfer curve. exact: require a lossless round trip.
    """

    each = False

    def __init__(
        self, pix_fmt: Callable[[Frame], str], *, prores: bool = False, exact: bool = False
    ) -> None:
        self._pix_fmt = pix_fmt
        self._settled: str | None = None  # by the first frame; a later one may have another
        self._prores = prores
        self._exact = exact

    @classmethod
    def lossless(cls) -> CutOut:
        """Keep the source's own planes."""
        return cls(alpha_format, exact=True)

    @classmethod
    def prores(cls) -> CutOut:
        """10 bits without chroma subsampling."""
        return cls(lambda _: "yuva444p10le", prores=True)

    @classmethod
    def vp9(cls) -> CutOut:
        """8 bits with 4:2:0 chroma subsampling."""
        return cls(lambda _: "yuva420p")

    def color(self, source: Color) -> Color:
        """The source's tags, as far as the codec supports them."""
        if not self._prores:
            return source
        transfer = _BT709 if source.transfer in _LIKE_BT709 else source.transfer
        return replace(source, range=min(source.range, 1), transfer=transfer)

    def paint(self, shot: Shot, color: Color) -> VideoFrame:
        """The frame, with the matte as its alpha plane."""
        self._settled = self._settled or self._pix_fmt(shot.source)
        image = image_of(shot.source, self._settled, color)
        if image.format.name == "bgra":
            pixels = image.to_ndarray()
            pixels[..., 3] = levels(shot.matte, 8)
            made = VideoFrame.from_ndarray(pixels, format="bgra")
            replace(color, matrix=0, range=2).mark(made)
            return made
        bits = image.format.components[3].bits
        planes(image)[3][:] = levels(shot.matte, bits)
        return image

    def similarity(self, read: VideoFrame, painted: VideoFrame, shot: Shot) -> float:
        """IoU of the opaque pixels; for a lossless file 1 or 0, comparing all planes."""
        if self._exact:
            return float(_same(read, painted))
        if (read.height, read.width) != shot.matte.shape or len(read.planes) != 4:
            return 0.0
        return _matte_iou(_unit(read, 3), shot.matte)


class Matte:
    """Opacity as gray values, in the luma of a video or as a single plane.

    pix_fmt: yuv420p, with an even number of lines and columns, or gray.
    """

    each = False

    def __init__(self, pix_fmt: str) -> None:
        self._pix_fmt = pix_fmt

    def color(self, source: Color) -> Color:
        """Full-range gray needs no source tags; a video's matte is BT.709."""
        return Color(range=2) if self._pix_fmt == "gray" else Color()

    def paint(self, shot: Shot, color: Color) -> VideoFrame:
        """White where the objects are opaque."""
        if self._pix_fmt == "gray":
            return VideoFrame.from_ndarray(levels(shot.matte, 8), format="gray")
        matte = _even(shot.matte)
        image = VideoFrame(matte.shape[1], matte.shape[0], self._pix_fmt)
        luma, *chroma = planes(image)
        luma[:] = np.rint(16 + 219 * matte)
        for plane in chroma:
            plane[:] = 128
        return image

    def similarity(self, read: VideoFrame, painted: VideoFrame, shot: Shot) -> float:
        """IoU of the opaque pixels."""
        if self._pix_fmt == "gray":
            return float(_same(read, painted))
        if (read.height, read.width) != (painted.height, painted.width):
            return 0.0
        return _matte_iou(_from_limited(planes(read)[0]), _even(shot.matte))


class Composite:
    """The objects over another background, 8 bits with even height and width."""

    each = False

    def __init__(self, background: Background) -> None:
        self._background = background

    @classmethod
    def green(cls) -> Composite:
        """A green screen."""
        return cls(StaticBackground(GREEN_SCREEN))

    def color(self, source: Color) -> Color:
        """The source's tags."""
        return source

    def paint(self, shot: Shot, color: Color) -> VideoFrame:
        """The frame blended over its background."""
        matte = _even(shot.matte)
        image = _even_image(image_of(shot.source, "yuv420p", color))
        made = blend(image, self._background.behind(image, matte, color), matte)
        color.mark(made)
        return made

    def similarity(self, read: VideoFrame, painted: VideoFrame, shot: Shot) -> float:
        """Share of the pixels whose luma differs by at most a tenth."""
        return _luma_share(read, painted)


class Overlay:
    """The frame with the masks drawn over it, with their edited edges but without softness."""

    each = True

    def color(self, source: Color) -> Color:
        """The source's tags."""
        return source

    def paint(self, shot: Shot, color: Color) -> VideoFrame:
        """Draw the masks; other pixels are unchanged."""
        rgb = rgb_of(shot.source, color)
        drawn = draw(rgb, _edited(shot))
        changed = (drawn != rgb).any(axis=-1).astype(np.float32)
        image = _even_image(image_of(shot.source, "yuv420p", color))
        over = _even_image(image_from(drawn, "yuv420p", color))
        made = blend(over, image, _even(changed))
        color.mark(made)
        return made

    def similarity(self, read: VideoFrame, painted: VideoFrame, shot: Shot) -> float:
        """Share of the pixels whose luma differs by at most a tenth."""
        return _luma_share(read, painted)


def _edited(shot: Shot) -> FrameResult:
    """The frame's result with the chosen objects only, and masks from their mattes."""
    shown = shot.frame.label_map()
    labels = np.zeros_like(shown)
    for object_id, matte in shot.mattes.items():
        labels[matte > _OPAQUE] = object_id
    for object_id, matte in shot.mattes.items():  # later objects lie on top
        labels[(matte > _OPAQUE) & (shown == object_id)] = object_id
    objects = tuple(o for o in shot.frame.result.objects if o.id in shot.mattes)
    return replace(shot.frame.result, labels=labels, objects=objects, covered=())


def _even(matte: Alpha) -> Alpha:
    """Crop an odd last row or column, which 4:2:0 does not support."""
    height, width = (max(2, side - side % 2) for side in matte.shape)
    fit = np.zeros((height, width), matte.dtype)
    part = matte[:height, :width]
    fit[: part.shape[0], : part.shape[1]] = part
    return fit


def _even_image(image: VideoFrame) -> VideoFrame:
    height, width = (max(2, side - side % 2) for side in (image.height, image.width))
    if (image.height, image.width) == (height, width):
        return image
    made = VideoFrame(width, height, image.format.name)
    for source, target in zip(planes(image), planes(made), strict=True):
        part = source[: target.shape[0], : target.shape[1]]
        target[:] = 0
        target[: part.shape[0], : part.shape[1]] = part
    return made


def _from_limited(luma: Plane) -> Alpha:
    return (luma.astype(np.float32) - np.float32(16)) / np.float32(219)


def _unit(image: VideoFrame, plane: int) -> Alpha:
    most = (1 << image.format.components[plane].bits) - 1
    return planes(image)[plane].astype(np.float32) / np.float32(most)


def _matte_iou(read: Alpha, written: Alpha) -> float:
    """IoU of pixels with opacity above one half; those written close to one half are ignored."""
    sure = np.abs(written - _OPAQUE) > _UNSURE
    return mask_iou((read > _OPAQUE) & sure, (written > _OPAQUE) & sure, empty=1.0)


def _luma_share(read: VideoFrame, painted: VideoFrame) -> float:
    one, other = planes(read)[0], planes(painted)[0]
    if one.shape != other.shape:
        return 0.0
    near = np.abs(one.astype(np.float32) - other) <= _TOLERANCE * 255
    return float(near.mean())


def _same(read: VideoFrame, painted: VideoFrame) -> bool:
    if (read.width, read.height) != (painted.width, painted.height):
        return False
    if read.format.name == "bgra":
        return np.array_equal(read.to_ndarray(), painted.to_ndarray())
    pairs: list[tuple[Plane, Plane]] = list(zip(planes(read), planes(painted), strict=False))
    same_count = len(read.planes) == len(painted.planes)
    return same_count and all(np.array_equal(one, other) for one, other in pairs)
