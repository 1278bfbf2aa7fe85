"""Everything mode for single images: find all objects without prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.config import PipelineConfig, ThreadsConfig
from maskstream.pipeline.models.head import open_head_of
from maskstream.pipeline.models.open import locate_model, open_segmenter
from maskstream.pipeline.segmenter.everything import EverythingChoice, find_everything
from maskstream.pipeline.segmenter.geometry import InputGeometry, boxes_of
from maskstream.pipeline.segmenter.proposals import Proposal
from maskstream.pipeline.sources.still import StillImage, as_frame
from maskstream.pipeline.types import Frame, FrameResult, ObjectResult, WantedDevice
from maskstream.trackers.state import TrackState


def segment_everything(
    image: StillImage,
    model: str | Path = "lite",
    *,
    points_per_side: int = 32,
    device: WantedDevice = "cpu",
    threads: int = 2,
) -> FrameResult:
    """Find the objects of an image (as `Predictor.set_image` takes it); parts are drawn on top.

    The embedded model's objectness head proposes boxes; other models are asked a grid of points.
    points_per_side: of that grid, a multiple of 4. The model is loaded on every
    call (about a second): for many images, open it once (`open_model`) and call `find_everything`.
    Raises `SourceError`, `ModelError` and `ConfigError`.

    >>> [found.box_xyxy for found in segment_everything(rgb).objects]  # doctest: +SKIP
    """
    frame = as_frame(image)
    choice = EverythingChoice(points_per_side)
    config = PipelineConfig(
        model=str(model), device=device, threads=ThreadsConfig(inference=threads)
    )
    path = locate_model(config)
    segmenter = open_segmenter(config, path, frame.size_hw)
    settings = choice.settings(segmenter.card)
    features = segmenter.encode(frame)
    head = open_head_of(path, threads=threads)
    if head is None:
        proposals, _ = find_everything(segmenter, features, settings, "hierarchical")
    else:
        boxes = head.propose(features, segmenter.geometry)
        proposals, _ = find_everything(segmenter, features, settings, "head", boxes)
    return single_frame_result(frame, proposals, segmenter.geometry)


def single_frame_result(
    frame: Frame, proposals: Sequence[Proposal], geometry: InputGeometry
) -> FrameResult:
    """Result of one frame from proposals, with ids from 1 by descending size.

    Where masks overlap the smaller one is on top, so that parts lie on their objects; completely
    covered objects are left out.
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
