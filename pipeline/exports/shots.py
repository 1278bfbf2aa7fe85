"""Frames of a store on their way to an editor: with mattes, and the picture they belong to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.exports.edges import Alpha, alpha_of, clean_mask, majority_vote
from maskstream.pipeline.exports.frames import ExportFrame, Mask
from maskstream.pipeline.exports.job import ExportJob
from maskstream.pipeline.exports.source_video import SourceVideo
from maskstream.pipeline.types import Frame, GrayImage

ALL = 0
"""The matte of all chosen objects together."""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A frame to be written. mattes: by object, or that of `ALL`. image: None without a video."""

    frame: ExportFrame
    mattes: Mapping[int, Alpha]
    image: Frame | None = None

    @property
    def matte(self) -> Alpha:
        """Opacity [H, W] of all chosen objects together."""
        return self.mattes[ALL]

    @property
    def source(self) -> Frame:
        """The picture. Raises `StoreError` if the export was opened without a video."""
        if self.image is None:
            raise StoreError("This format needs the video's pixels, but was opened without them.")
        return self.image


class Shots:
    """Makes shots of frames that come in order, as `job.edges` says.

    Temporal smoothing needs later frames, so shots come late; the last frame brings all that are
    left. Held are as many frames' masks as are smoothed over, and one picture.
    """

    def __init__(
        self, job: ExportJob, *, source_video: SourceVideo | None, each: bool = False
    ) -> None:
        self._job = job
        self._source_video = source_video
        self._each = each
        self._half = job.edges.smooth_frames // 2
        self._held: deque[tuple[ExportFrame, dict[int, Mask]]] = deque(
            maxlen=job.edges.smooth_frames
        )
        self._row = 0

    def push(self, frame: ExportFrame) -> Iterator[Shot]:
        """Take a frame; the shots that are complete with it."""
        self._held.append((frame, self._masks(frame)))
        is_last = frame.row == len(self._job.numbers) - 1
        while self._row <= (frame.row if is_last else frame.row - self._half):
            yield self._shot(self._row - self._held[0][0].row)
            self._row += 1

    def _masks(self, frame: ExportFrame) -> dict[int, Mask]:
        masks = {chosen.id: frame.mask(chosen.id) for chosen in frame.objects}
        if not self._each:
            nothing = np.zeros(frame.result.labels.shape, np.bool_)
            masks = {ALL: np.logical_or.reduce([nothing, *masks.values()])}
        return {key: clean_mask(mask, self._job.edges) for key, mask in masks.items()}

    def _shot(self, place: int) -> Shot:
        frame, masks = self._held[place]
        around = list(self._held)[max(0, place - self._half) : place + self._half + 1]
        image = None if self._source_video is None else self._source_video.frame(frame)
        luma = cache(partial(_luma, image))
        mattes = {
            key: alpha_of(
                majority_vote([held[key] for _, held in around], mask), self._job.edges, luma
            )
            for key, mask in masks.items()
        }
        return Shot(frame, mattes, image)


def _luma(image: Frame | None) -> GrayImage:
    if image is None:
        raise StoreError("Soft edges need the video's pixels, but there are none.")
    return image.gray()
