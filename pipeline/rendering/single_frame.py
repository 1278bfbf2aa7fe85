"""Objects of single frames as pictures: the label map, and the overlay to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import ConfigError, StoreError, StoreExistsError
from maskstream.pipeline.segmenter.everything import Proposal
from maskstream.pipeline.segmenter.geometry import InputGeometry, boxes_of
from maskstream.pipeline.types import (
    Frame,
    FrameResult,
    LabelMap,
    ObjectResult,
    RgbImage,
    SourceInfo,
)
from maskstream.trackers.state import TrackState

_SUFFIX = ".png"


def single_frame_result(
    frame: Frame, proposals: Sequence[Proposal], geometry: InputGeometry
) -> FrameResult:
    """The objects of one frame by themselves, numbered from 1 by size.

    Where masks overlap the smaller one shows, so that parts lie on what they belong to; what is
    hidden by its parts altogether is left out.
    """
    by_size = sorted(proposals, key=lambda p: -int((p.logits > 0).sum()))
    labels = np.zeros(geometry.frame_hw, np.uint16)
    for rank, proposal in enumerate(by_size, start=1):
        labels[geometry.to_size(proposal.logits, geometry.frame_hw) > 0] = rank
    shown = [int(rank) for rank in np.unique(labels) if rank]
    numbers = np.zeros(len(by_size) + 1, np.uint16)
    numbers[shown] = np.arange(1, len(shown) + 1)
    labels = numbers[labels]
    objects = tuple(
        _object(number, labels == number, by_size[rank - 1].score)
        for number, rank in enumerate(shown, start=1)
    )
    return FrameResult(frame.index, frame.pts, frame.time_base, True, labels, objects)


def _object(number: int, shown: npt.NDArray[np.bool_], score: float) -> ObjectResult:
    x0, y0, x1, y1 = boxes_of(shown[None])[0].tolist()
    return ObjectResult(number, (x0, y0, x1, y1), score, TrackState.TRACKED, int(shown.sum()))


@dataclass(frozen=True, slots=True)
class ImageOutput:
    """Where pictures of frames go: a PNG file for one frame, or a folder of `000012.png`.

    Files appear under their names when they are finished.
    """

    path: Path

    def check(self, info: SourceInfo, *, overwrite: bool) -> None:
        """Refuse what cannot be written or is there already.

        Raises:
            ConfigError: it is neither PNG nor folder, or one file is to take several frames.
            StoreExistsError: the file, or something in the folder, is there already.
            StoreError: it cannot be told whether something is there.
        """
        try:
            is_folder = self.path.is_dir()
            filled = any(self.path.iterdir()) if is_folder else self.path.exists()
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from error
        if self.path.suffix and not self._is_file and not is_folder:
            raise ConfigError(
                f"{self.path} is no place for pictures: give a name that ends in {_SUFFIX} for "
                "one frame, or a folder (without a dot in its name) for several"
            )
        if self._is_file and info.frame_count != 1:
            raise ConfigError(
                f"{self.path} takes one picture, but {info.name} may have more frames: give a "
                "folder, or choose one frame with --start and --end"
            )
        if filled and not overwrite:
            raise StoreExistsError(f"{self.path} is there already: replace it with --overwrite")

    def write(self, frame_index: int, pixels: RgbImage | LabelMap) -> None:
        """Write labels uint16 [H, W] or a picture RGB uint8 [H, W, 3]. Raises `StoreError`."""
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
