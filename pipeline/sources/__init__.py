"""Sources of frames: video files, images and arrays."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from maskstream.pipeline.addresses import is_url
from maskstream.pipeline.errors import ConfigError, SourceNotFoundError
from maskstream.pipeline.sources.arrays import ArraySource, ArrayView
from maskstream.pipeline.sources.images import SUFFIXES as IMAGE_SUFFIXES
from maskstream.pipeline.sources.images import ImageSequence, is_animated
from maskstream.pipeline.sources.position import FrameRange, Position
from maskstream.pipeline.sources.video import VideoFile
from maskstream.pipeline.types import RgbImage, Source

__all__ = [
    "ArraySource",
    "ArrayView",
    "FrameRange",
    "ImageSequence",
    "Position",
    "VideoFile",
    "is_pattern",
    "open_source",
]


def open_source(
    target: str | Path | Iterable[RgbImage],
    *,
    start: Position | int | str | None = None,
    end: Position | int | str | None = None,
    stride: int = 1,
    rate: Fraction | None = None,
    deinterlace: bool = False,
    threads: int = 1,
) -> Source:
    """Choose the source that reads `target`; nothing is opened yet.

    Args:
        target: a video file, an image, a folder of images, a pattern of image names
            (`shots/img_%04d.png`, `shots/img_####.png`, `shots/*.png`), or arrays, RGB uint8
            [H, W, 3].
        start: first frame, as a frame index or as text for `Position.parse`.
        end: the frame to stop before.
        stride: take every `stride`-th frame.
        rate: frames per second of images and arrays; without it they have no timestamps.
        deinterlace: make whole pictures of an interlaced video, see `VideoFile`.
        threads: of the decoder of a video; each one above 1 holds one more frame.

    Raises:
        SourceNotFoundError: there is no such file or folder.
        ConfigError: a position cannot be parsed, the range is impossible, or an option does not fit
            the source.
    """
    frame_range = FrameRange.of(start, end, stride)
    if not isinstance(target, str | Path):
        return ArraySource(target, rate, frame_range)
    if is_url(str(target)):
        raise SourceNotFoundError(f"{target} is an address, not a file; give it to `live`.")
    path = Path(target)
    is_image = path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not is_animated(path)
    if is_image or is_pattern(path) or path.is_dir():
        if deinterlace:
            raise ConfigError("--deinterlace is for video files; images are taken as they are.")
        return ImageSequence(path, rate, frame_range)
    if not path.exists():
        raise SourceNotFoundError(f"There is no file or folder {path}.")
    if rate is not None:
        raise ConfigError(f"--fps is for images; the video {path.name} has its own times.")
    return VideoFile(path, frame_range, threads, deinterlace)


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern of image names: it does not exist and has wildcards."""
    return not path.exists() and any(wildcard in path.name for wildcard in "%*?[#")
