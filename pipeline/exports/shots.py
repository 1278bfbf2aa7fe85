"""Shots: frames of a store with their mattes and the video's frame, for editor formats."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.exports.edges import Alpha, Edges, alpha_of, clean_mask, majority_vote
from maskstream.pipeline.exports.frames import ExportFrame, Mask
from maskstream.pipeline.exports.job import ExportJob
from maskstream.pipeline.exports.source_video import SourceVideo
from maskstream.pipeline.types import Frame, GrayImage

ALL = 0
"""Key of the matte of all chosen objects together."""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A frame to write. mattes: by object id, or under `ALL`. image: None without a video."""

    frame: ExportFrame
    mattes: Mapping[int, Alpha]
    image: Frame | None = None

    @property
    def matte(self) -> Alpha:
        """Opacity [H, W] of all chosen objects together."""
        return self.mattes[ALL]

    @property
    def source(self) -> Frame:
        """The video's frame. Raises `StoreError` if the export was opened without a video."""
        if self.image is None:
            raise StoreError("This format needs the video's pixels, but was opened without them.")
        return self.image


class Shots:
    """Turns frames, given in order, into shots with the edges of `job.edges`, or the object's own.

    Temporal smoothing needs later frames, so shots are delayed; the last frame completes all
    remaining ones. The masks of one smoothing window and one image are kept in memory.
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
        """Add a frame; yield the shots that it completes."""
        self._held.append((frame, self._masks(frame)))
        is_last = frame.row == len(self._job.numbers) - 1
        while self._row <= (frame.row if is_last else frame.row - self._half):
            yield self._shot(self._row - self._held[0][0].row)
            self._row += 1

    def _masks(self, frame: ExportFrame) -> dict[int, Mask]:
        masks = {chosen.id: frame.mask(chosen.id) for chosen in frame.objects}
        if not self._each:
            own = {key: mask for key, mask in masks.items() if key in self._job.object_edges}
            others = [mask for key, mask in masks.items() if key not in own]
            nothing = np.zeros(frame.result.labels.shape, np.bool_)
            masks = {ALL: np.logical_or.reduce([nothing, *others]), **own}
        return {key: clean_mask(mask, self._edges_of(key)) for key, mask in masks.items()}

    def _edges_of(self, key: int) -> Edges:
        return self._job.object_edges.get(key, self._job.edges)

    def _shot(self, place: int) -> Shot:
        frame, masks = self._held[place]
        around = list(self._held)[max(0, place - self._half) : place + self._half + 1]
        image = None if self._source_video is None else self._source_video.frame(frame)
        luma = cache(partial(_luma, image))
        mattes = {
            key: alpha_of(
                majority_vote([held[key] for _, held in around], mask), self._edges_of(key), luma
            )
            for key, mask in masks.items()
        }
        if not self._each and len(mattes) > 1:
            mattes = {ALL: np.maximum.reduce([*mattes.values()])}
        return Shot(frame, mattes, image)


def _luma(image: Frame | None) -> GrayImage:
    if image is None:
        raise StoreError("Soft edges need the video's pixels, but there are none.")
    return image.gray()
