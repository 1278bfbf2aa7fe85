"""Images for the page, at screen size: JPEG of frames, PNG of cutouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.exports.edges import Edges, alpha_of
from maskstream.pipeline.exports.frames import Mask
from maskstream.pipeline.sources import VideoFile
from maskstream.pipeline.types import Frame, SizeHW

JPEG_QUALITY = 88


def first_image(path: Path, longest: int) -> bytes:
    """Encode a video's first frame as JPEG. Raises `SourceError`."""
    with VideoFile(path).open() as reader:
        return jpeg(next(iter(reader)), longest)


def jpeg(frame: Frame, longest: int) -> bytes:
    """Encode a frame as JPEG with a longer side of at most `longest`."""
    rgb = frame.rgb(fit_within(frame.size_hw, longest))
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return bytes(encoded.tobytes())


def cutout(frame: Frame, mattes: Sequence[tuple[Mask, Edges]], longest: int) -> bytes:
    """Cut masks, bool [H, W], out of a frame with edges as in exports; encode as RGBA PNG."""
    alpha = np.zeros(frame.size_hw, np.float32)
    for edges in dict.fromkeys(edges for _, edges in mattes):
        mask = np.logical_or.reduce([mask for mask, other in mattes if other == edges])
        alpha = np.maximum(alpha, alpha_of(mask, edges, frame.gray))
    size_hw = fit_within(frame.size_hw, longest)
    opacity = cv2.resize(alpha, size_hw[::-1], interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(frame.rgb(size_hw), cv2.COLOR_RGB2BGR)
    bgra = np.dstack([bgr, np.rint(255 * opacity).astype(np.uint8)])
    encoded = cv2.imencode(".png", bgra, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    return bytes(encoded.tobytes())


def shrink_labels(labels: npt.NDArray[Any], longest: int) -> npt.NDArray[np.uint8]:
    """Scale a label map or a mask [H, W] down to a longer side of at most `longest`, as uint8."""
    height, width = fit_within((labels.shape[0], labels.shape[1]), longest)
    whole = labels.astype(np.uint8)
    if whole.shape == (height, width):
        return whole
    small = cv2.resize(whole, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(small, np.uint8)


def fit_within(size_hw: SizeHW, longest: int) -> SizeHW:
    """Scale a size down to a longer side of at most `longest`."""
    scale = min(1.0, longest / max(size_hw))
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))
