"""`bench corrections`: how much one click, and how many clicks, correct a wrong mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import UnreadableSourceError
from maskstream.pipeline.lab.bench.correction_cases import CorrectionCase
from maskstream.pipeline.lab.evaluation.clicks import next_clicks
from maskstream.pipeline.lab.evaluation.scores import SegmenterFor, frame_of
from maskstream.pipeline.segmenter.corrections import (
    BoolMap,
    Correction,
    PixelClick,
    correct_mask,
    prior_logits,
)
from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.segmenter.model import Features, PromptBatch, Segmenter
from maskstream.trackers.iou import mask_iou

RAISED_GOAL, LOWERED_GOAL = 0.85, 0.03
"""Share of masks that one click must improve, and at most may make worse."""

WORSE = 0.02
"""Loss of IoU above which a mask is worse."""

NOC_IOU, NOC_MAX = 0.85, 20
"""NoC@85: clicks until this IoU, at most so many (RITM, arXiv 2102.06583)."""

BOOTSTRAP_SAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Share:
    """A mean with its 95 % interval, by bootstrap over scenes."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Results of one method on one kind of cases.

    raised, lowered: share of masks that one click raised, and lowered by more than `WORSE`. iou:
    after one click. noc: clicks to `NOC_IOU`. reached: share that came there.
    """

    raised: Share
    lowered: Share
    iou: Share
    noc: Share
    reached: Share


@dataclass(frozen=True, slots=True)
class KindFigures:
    """Cases of one kind. iou_before: mean; methods: figures by name of `METHODS`."""

    cases: int
    scenes: int
    iou_before: float
    methods: Mapping[str, Figures]


@dataclass(frozen=True, slots=True)
class CorrectionsReport:
    """Figures by kind of cases."""

    model: str
    kinds: Mapping[str, KindFigures]

    @property
    def reached(self) -> bool:
        """Whether local corrections reach both goals on every kind."""
        local = [kind.methods["local"] for kind in self.kinds.values()]
        return all(f.raised.mean >= RAISED_GOAL and f.lowered.mean <= LOWERED_GOAL for f in local)

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self) | {"reached": self.reached}


class Corrector(Protocol):
    """Answers one click after the other on one mask."""

    def click(self, click: PixelClick) -> BoolMap:
        """The mask after a further click."""
        ...


class LocalCorrector:
    """Corrects near each click, as the page does (`maskstream.pipeline.segmenter.corrections`)."""

    def __init__(self, segmenter: Segmenter, features: Features, case: CorrectionCase) -> None:
        self._segmenter, self._features = segmenter, features
        height, width = segmenter.geometry.valid_hw
        rgb = cv2.resize(case.rgb, (width, height), interpolation=cv2.INTER_AREA)
        self._rgb = np.asarray(rgb, np.uint8)
        self._mask = case.mask
        self._clicks: list[PixelClick] = []

    def click(self, click: PixelClick) -> BoolMap:
        """The mask after a further click."""
        correction = Correction(self._mask, click, tuple(self._clicks))
        self._mask = correct_mask(self._segmenter, self._features, self._rgb, correction)
        self._clicks.append(click)
        return self._mask


class DecoderCorrector:
    """Takes the decoder's answer to all clicks and the mask, as SAM does, and version 0.1.0 did.

    A model that takes no masks is given the clicks alone.
    """

    def __init__(self, segmenter: Segmenter, features: Features, case: CorrectionCase) -> None:
        self._segmenter, self._features = segmenter, features
        self._logits: FloatMap = segmenter.geometry.from_size(prior_logits(case.mask))
        self._clicks: list[PixelClick] = []

    def click(self, click: PixelClick) -> BoolMap:
        """The mask after a further click."""
        self._clicks.append(click)
        points = np.array([[(c.x + 0.5, c.y + 0.5) for c in self._clicks]], np.float32)
        prompt = PromptBatch.points(points, [[int(c.positive) for c in self._clicks]])
        if self._segmenter.card.mask_prompts:
            prompt = PromptBatch(prompt.xy, prompt.labels, self._logits[None, None])
        self._logits = self._segmenter.decode(self._features, prompt).masks[0, 0]
        geometry = self._segmenter.geometry
        return np.asarray(geometry.to_size(self._logits, geometry.frame_hw) > 0)


METHODS: Mapping[str, Callable[[Segmenter, Features, CorrectionCase], Corrector]] = {
    "decoder": DecoderCorrector,
    "local": LocalCorrector,
}


def bench_corrections(
    model: str,
    segmenter_for: SegmenterFor,
    cases: Iterable[CorrectionCase],
    *,
    max_clicks: int = NOC_MAX,
    on_case: Callable[[str], None] = lambda _: None,
) -> CorrectionsReport:
    """Correct every case by simulated clicks with every method.

    Each click is at the center of the deepest error (`next_clicks`). max_clicks: of each case.
    Raises `UnreadableSourceError` if there are no cases.
    """
    runs: dict[str, list[tuple[str, dict[str, list[float]]]]] = {}
    for case in cases:
        height, width, _ = case.rgb.shape
        segmenter = segmenter_for((height, width))
        features = segmenter.encode(frame_of(case.rgb))
        ious = {
            name: _clicked(make(segmenter, features, case), case, max_clicks)
            for name, make in METHODS.items()
        }
        runs.setdefault(case.kind, []).append((case.scene, ious))
        on_case(case.scene)
    if not runs:
        raise UnreadableSourceError("no tracked mask and no image gives a mask to be corrected")
    kinds = {kind: _kind_figures(found, max_clicks) for kind, found in runs.items()}
    return CorrectionsReport(model, kinds)


def _clicked(corrector: Corrector, case: CorrectionCase, max_clicks: int) -> list[float]:
    """IoU of the mask, and after each click until `NOC_IOU`."""
    mask = case.mask
    ious = [mask_iou(mask, case.truth)]
    while len(ious) <= max_clicks and (len(ious) == 1 or ious[-1] < NOC_IOU):
        clicks = next_clicks(mask[None], case.truth[None])
        x, y = np.floor(clicks.xy[0, 0]).astype(int).tolist()
        mask = corrector.click(PixelClick(x, y, bool(clicks.labels[0, 0])))
        ious.append(mask_iou(mask, case.truth))
    return ious


def _kind_figures(
    found: Sequence[tuple[str, Mapping[str, Sequence[float]]]], max_clicks: int
) -> KindFigures:
    scenes = np.unique([scene for scene, _ in found], return_inverse=True)[1]
    before = [next(iter(ious.values()))[0] for _, ious in found]
    methods = {
        name: _figures([ious[name] for _, ious in found], scenes, max_clicks) for name in METHODS
    }
    return KindFigures(len(found), int(scenes.max()) + 1, round(float(np.mean(before)), 4), methods)


def _figures(
    runs: Sequence[Sequence[float]], scenes: npt.NDArray[np.intp], max_clicks: int
) -> Figures:
    gained = np.array([ious[1] - ious[0] for ious in runs])
    reached = np.array([ious[-1] >= NOC_IOU for ious in runs])
    clicks = np.array([len(ious) - 1 if ious[-1] >= NOC_IOU else max_clicks for ious in runs])
    values = (gained > 0, gained < -WORSE, np.array([ious[1] for ious in runs]), clicks, reached)
    return Figures(*(_interval(v.astype(np.float64), scenes) for v in values))


def _interval(values: npt.NDArray[np.float64], scenes: npt.NDArray[np.intp]) -> Share:
    """Mean and 95 % interval: whole scenes are drawn with replacement."""
    sums, counts = np.bincount(scenes, values), np.bincount(scenes)
    drawn = np.random.default_rng(0).integers(len(sums), size=(BOOTSTRAP_SAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Share(*(round(float(v), 4) for v in (values.mean(), low, high)))
