"""Pictures for the page, no larger than a screen: JPEG of frames, PNG of what masks cut out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from maskstream.pipeline.exports.edges import Edges, alpha_of
from maskstream.pipeline.exports.frames import Mask
from maskstream.pipeline.sources import VideoFile
from maskstream.pipeline.types import Frame, SizeHW

JPEG_QUALITY = 88


def first_image(path: Path, longest: int) -> bytes:
    """JPEG of a video's first frame. Raises `SourceError`."""
    with VideoFile(path).open() as reader:
        return jpeg(next(iter(reader)), longest)


def jpeg(frame: Frame, longest: int) -> bytes:
    """JPEG of a frame whose longer side is at most `longest`."""
    rgb = frame.rgb(fit_within(frame.size_hw, longest))
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return bytes(encoded.tobytes())


def cutout(frame: Frame, mask: Mask, edges: Edges, longest: int) -> bytes:
    """PNG RGBA of what a mask, bool [H, W], cuts out of a frame with these edges, as exports do."""
    alpha = alpha_of(mask, edges, frame.gray)
    size_hw = fit_within(frame.size_hw, longest)
    opacity = cv2.resize(alpha, size_hw[::-1], interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(frame.rgb(size_hw), cv2.COLOR_RGB2BGR)
    bgra = np.dstack([bgr, np.rint(255 * opacity).astype(np.uint8)])
    encoded = cv2.imencode(".png", bgra, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    return bytes(encoded.tobytes())


def fit_within(size_hw: SizeHW, longest: int) -> SizeHW:
    """A size with the same aspect whose longer side is at most `longest`."""
    scale = min(1.0, longest / max(size_hw))
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))
