"""Everything mode for single images: find all objects without prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.config import PipelineConfig, ThreadsConfig
from maskstream.pipeline.detectors.detector import DetectedBox
from maskstream.pipeline.models.head import open_head_of
from maskstream.pipeline.models.open import locate_model, open_segmenter
from maskstream.pipeline.segmenter.everything import EverythingChoice, Grid, find_everything
from maskstream.pipeline.segmenter.geometry import InputGeometry, boxes_of
from maskstream.pipeline.segmenter.model import Segmenter
from maskstream.pipeline.segmenter.proposals import Proposal
from maskstream.pipeline.sources.still import StillImage, as_frame
from maskstream.pipeline.tracking.detecting import distinct_masks
from maskstream.pipeline.types import Frame, FrameResult, ObjectResult, WantedDevice, WantedEngine
from maskstream.trackers.detector_matching import LabeledDetection
from maskstream.trackers.state import TrackState


def segment_everything(
    image: StillImage,
    model: str | Path = "lite",
    *,
    points_per_side: int = 32,
    device: WantedDevice = "cpu",
    engine: WantedEngine = "auto",
    threads: int = 2,
) -> FrameResult:
    """Find the objects of an image (as `Predictor.set_image` takes it); parts are drawn on top.

    The embedded model's objectness head proposes boxes; other models get a grid of points.
    points_per_side: of that grid, a multiple of 4. device, engine, threads: as `open_model`. The
    model is loaded on every call (about a second): for many images, open it once (`open_model`) and
    call `find_everything`. Raises `SourceError`, `ModelError`, `MissingExtraError` and
    `ConfigError`.

    >>> [found.box_xyxy for found in segment_everything(rgb).objects]  # doctest: +SKIP
    """
    frame = as_frame(image)
    choice = EverythingChoice(points_per_side)
    config = PipelineConfig(
        model=str(model), device=device, engine=engine, threads=ThreadsConfig(inference=threads)
    )
    path = locate_model(config)
    segmenter = open_segmenter(config, path, frame.size_hw)
    settings = choice.settings(segmenter.card)
    features = segmenter.encode(frame)
    head = open_head_of(path, threads=threads)
    boxes = None if head is None else head.propose(features, segmenter.geometry)
    grid: Grid = "hierarchical" if head is None else "head"
    proposals, _ = find_everything(segmenter, features, settings, grid, boxes)
    return single_frame_result(frame, proposals, segmenter.geometry)


def single_frame_result(
    frame: Frame, proposals: Sequence[Proposal], geometry: InputGeometry
) -> FrameResult:
    """Result of one frame from proposals, with ids from 1 by descending size.

    Where masks overlap the smaller one is on top, so that parts lie on their objects; completely
    covered objects are left out.
    """
    return _layered(
        frame,
        [_Layer(int((p.logits > 0).sum()), _full_size(p, geometry), p.score) for p in proposals],
    )


def detected_frame_result(
    frame: Frame, segmenter: Segmenter, boxes: Sequence[DetectedBox]
) -> FrameResult:
    """Result of one frame from detections: the detector's masks, or those decoded from its boxes.

    boxes: the best first; each object is kept once. Ids and overlaps: as `single_frame_result`.
    """
    if not boxes:
        return _layered(frame, [])
    found = distinct_masks(segmenter, segmenter.encode(frame), boxes, frame.size_hw)
    return _layered(frame, [_layer(each) for each in found])


@dataclass(frozen=True, slots=True)
class _Layer:
    """An object to draw. mask: makes its mask, bool [H, W]."""

    area: int
    mask: Callable[[], npt.NDArray[np.bool_]]
    score: float
    label: str = ""
    detector_score: float | None = None


def _layer(found: LabeledDetection) -> _Layer:
    mask = found.mask.logits > 0
    return _Layer(int(mask.sum()), lambda: mask, found.mask.score, found.label, found.score)


def _full_size(proposal: Proposal, geometry: InputGeometry) -> Callable[[], npt.NDArray[np.bool_]]:
    return lambda: geometry.to_size(proposal.logits, geometry.frame_hw) > 0


def _layered(frame: Frame, layers: Sequence[_Layer]) -> FrameResult:
    by_size = sorted(layers, key=lambda layer: -layer.area)
    labels = np.zeros(frame.size_hw, np.uint16)
    for rank, layer in enumerate(by_size, start=1):
        labels[layer.mask()] = rank
    shown = [int(rank) for rank in np.unique(labels) if rank]
    numbers = np.zeros(len(by_size) + 1, np.uint16)
    numbers[shown] = np.arange(1, len(shown) + 1)
    labels = numbers[labels]
    objects = tuple(
        _object(number, labels == number, by_size[rank - 1])
        for number, rank in enumerate(shown, start=1)
    )
    return FrameResult(frame.index, frame.pts, frame.time_base, True, labels, objects)


def _object(number: int, shown: npt.NDArray[np.bool_], layer: _Layer) -> ObjectResult:
    x0, y0, x1, y1 = boxes_of(shown[None])[0].tolist()
    area = int(shown.sum())
    box, state = (x0, y0, x1, y1), TrackState.TRACKED
    return ObjectResult(number, box, layer.score, state, area, layer.label, layer.detector_score)
