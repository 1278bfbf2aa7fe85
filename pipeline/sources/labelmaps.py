"""Read label maps from PNG files: gray or indexed (as in DAVIS), values are object ids."""

from __future__ import annotations

import io
from pathlib import Path

import av
import av.error
import cv2
import numpy as np

from maskstream.pipeline.errors import SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.types import LabelMap

_INDEXED = "pal8"


def read_label_map(file: Path) -> LabelMap:
    """Read a PNG whose gray values or palette indices are labels, uint16 [H, W].

    OpenCV would replace an index by its color, so indexed images are decoded by FFmpeg.

    Raises:
        SourceNotFoundError: there is no such file.
        UnreadableSourceError: it is not an image, or a color image.
    """
    if not file.is_file():
        raise SourceNotFoundError(f"there is no label map {file}")
    encoded = file.read_bytes()
    try:
        with av.open(io.BytesIO(encoded), "r") as container:
            image = next(container.decode(video=0))
            if image.format.name == _INDEXED:
                indices, _ = image.to_ndarray()
                return np.asarray(indices, np.uint16)
    except (av.error.FFmpegError, StopIteration, IndexError) as error:
        raise UnreadableSourceError(f"{file} cannot be decoded as an image") from error
    labels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None:
        raise UnreadableSourceError(f"{file} cannot be decoded as an image")
    if labels.ndim != 2:
        raise UnreadableSourceError(
            f"{file} is a color image; a label map is an indexed or gray PNG whose values are "
            "the objects' ids"
        )
    return np.asarray(labels, np.uint16)
