"""Masks in videos: alpha channels, black-and-white mattes, green screens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.exports.color import planes
from maskstream.pipeline.imports.found import FoundMask, Specks
from maskstream.pipeline.sources.orientation import Orientation
from maskstream.pipeline.sources.video import VideoFile, open_container, video_stream
from maskstream.pipeline.types import Frame, RgbImage

_GRAY = 24  # chroma of a matte, at most (8 bits)
_GREEN_SHARE = 0.5  # of the border, in a green screen
_KEY_DISTANCE = 0.5  # of the distance between the key's color and gray


def video_masks(file: Path, specks: Specks) -> Iterator[FoundMask]:
    """Read one object from a video: its alpha, its brightness, or what is not green.

    Frames are numbered from 0.

    Raises:
        SourceError: it is no video, or neither of these.
    """
    return specks.without(
        FoundMask(number, 1, mask) for number, mask in enumerate(_masks(file)) if mask.any()
    )


def _masks(file: Path) -> Iterator[npt.NDArray[np.bool_]]:
    if _has_alpha(file):
        yield from _alpha_masks(file)
        return
    with VideoFile(file).open() as reader:
        key: RgbImage | None = None
        for frame in reader:
            rgb = frame.rgb()
            if frame.index == 0 and np.ptp(rgb.astype(np.int16), axis=2).max() > _GRAY:
                key = _key_of(file, rgb)
            yield _not_key(rgb, key) if key is not None else _bright(frame)


def _bright(frame: Frame) -> npt.NDArray[np.bool_]:
    return np.asarray(frame.gray() > 127, np.bool_)


def _key_of(file: Path, rgb: RgbImage) -> RgbImage:
    """The green of a green screen, RGB uint8 [3], by the border of a frame."""
    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]]).astype(np.int16)
    red, green, blue = border.T
    is_green = (green > 60) & (green > 1.4 * red) & (green > 1.4 * blue)
    if is_green.mean() < _GREEN_SHARE:
        raise UnreadableSourceError(
            f"{file} is neither a black-and-white matte, nor a video with alpha, nor a green screen"
        )
    return np.asarray(np.median(border[is_green], axis=0), np.uint8)


def _not_key(rgb: RgbImage, key: RgbImage) -> npt.NDArray[np.bool_]:
    """Pixels whose color differs from the key's more than half as much as gray does."""

    def chroma(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        wide = values.astype(np.float32)
        return np.asarray(wide - wide.mean(axis=-1, keepdims=True), np.float32)

    wanted = chroma(key)
    distance = np.linalg.norm(chroma(rgb) - wanted, axis=-1)
    return np.asarray(distance > _KEY_DISTANCE * np.linalg.norm(wanted), np.bool_)


def _has_alpha(file: Path) -> bool:
    with open_container(file) as container:
        stream = video_stream(str(file), container)
        if stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1":
            return True
        form = stream.codec_context.format
        return form is not None and any(component.is_alpha for component in form.components)


def _alpha_masks(file: Path) -> Iterator[npt.NDArray[np.bool_]]:
    with open_container(file) as container:
        stream = video_stream(str(file), container)
        context: Any = stream.codec_context
        if context.name in ("vp8", "vp9"):  # FFmpeg's native decoders ignore alpha
            context = av.CodecContext.create(
                "libvpx" if context.name == "vp8" else "libvpx-vp9", "r"
            )
        orientation: Orientation | None = None
        try:
            for packet in container.demux(stream):
                for image in context.decode(packet):
                    orientation = orientation or Orientation.of(image)
                    opaque = (_alpha_of(image) > 0.5).astype(np.uint8)
                    yield orientation.apply(opaque).astype(np.bool_)
        except av.error.FFmpegError as error:
            raise UnreadableSourceError(f"{file} cannot be decoded: {error.strerror}") from error


def _alpha_of(image: VideoFrame) -> npt.NDArray[np.float32]:
    """Opacity 0 to 1, [H, W]."""
    bits = next(c.bits for c in image.format.components if c.is_alpha)
    if image.format.is_planar:
        return np.asarray(planes(image)[-1] / ((1 << bits) - 1), np.float32)
    rgba = image.to_ndarray(format="rgba")
    return np.asarray(rgba[..., 3] / np.float32(255), np.float32)
