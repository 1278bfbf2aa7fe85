"""Keyframe schedule of files: keyframes where masks need them, within a budget of work.

Work is estimated, not timed, so that two runs choose the same keyframes. Every frame earns credit
for its duration minus the estimated work of the frame; keyframes are paid from the credit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.models.networks import Networks
from maskstream.pipeline.types import SizeHW

LEAST_STEP_S = 1 / 30
"""Least duration of a frame in the budget: faster clips are budgeted as 30 frames a second."""
MOST_STEP_S = 1 / 10
"""Greatest duration of a frame in the budget."""
NOTICE = 2
"""Frames between the decision and the keyframe: the encoder runs ahead of the tracker."""


@dataclass(frozen=True, slots=True)
class WorkWeights:
    """Estimated work, milliseconds on two reference cores (docs/measurements/speed.md).

    frame, frame_megapixel: of every frame, by its displayed size. propagated: of every object on
    every frame. keyframe, encoder_megapixel: of a keyframe, by the encoder's input size. looked_at:
    of every object that a keyframe updates.
    """

    frame: float = 1.0
    frame_megapixel: float = 2.2
    propagated: float = 0.6
    keyframe: float = 6.0
    encoder_megapixel: float = 300.0
    looked_at: float = 7.0


@dataclass(frozen=True, slots=True)
class Terms:
    """Limits of a schedule.

    work: share of a clip's duration that a run may take. need_least, need_most: need
    (`maskstream.trackers.need.Need.due`) from which a keyframe is made with the maximum of credit,
    and with just enough for it. saved: maximum of credit, in keyframes.
    """

    work: float
    need_least: float
    need_most: float
    saved: float = 6.0


class KeyframeSchedule:
    """Work credit of one run: frames earn it, keyframes cost it.

    Required keyframes (regular ones, cuts, prompts, objects that moved far) are paid as well; the
    credit may become negative, which delays the others. It starts at its maximum. frame_hw:
    displayed size; input_hw: the encoder's input size. credit: estimated milliseconds.
    """

    def __init__(
        self, terms: Terms, weights: WorkWeights, frame_hw: SizeHW, input_hw: SizeHW
    ) -> None:
        self.credit = math.inf  # limited to the maximum when the number of objects is known
        self._terms = terms
        self._weights = weights
        self._frame = weights.frame + weights.frame_megapixel * _megapixels(frame_hw)
        self._keyframe = weights.keyframe + weights.encoder_megapixel * _megapixels(input_hw)

    def income(self, step_s: float, objects: int) -> float:
        """Credit earned by a frame that comes `step_s` seconds after the previous one."""
        step_s = min(max(step_s, LEAST_STEP_S), MOST_STEP_S)
        return 1000 * self._terms.work * step_s - self.frame_work(objects)

    def frame_work(self, objects: int) -> float:
        """Work of a frame that is no keyframe, with `objects` objects."""
        return self._frame + self._weights.propagated * objects

    def cost(self, objects: int) -> float:
        """Cost of a keyframe that updates `objects` objects."""
        return self._keyframe + self._weights.looked_at * objects

    def earn(self, step_s: float, objects: int) -> None:
        """Add the income of a frame with `objects` objects; the credit is bounded both ways."""
        most = self._terms.saved * self.cost(objects)
        self.credit = max(-most, min(self.credit + self.income(step_s, objects), most))

    def pay(self, objects: int) -> None:
        """Subtract the cost of a keyframe that updates `objects` objects."""
        self.credit -= self.cost(objects)

    def buys(self, need: float, objects: int) -> bool:
        """Whether `need` and the credit suffice for a keyframe that updates `objects` objects."""
        spare = self.credit / self.cost(objects) - 1
        if spare < 0:
            return False
        terms = self._terms
        share = min(1.0, spare / (terms.saved - 1))
        return need >= terms.need_most + (terms.need_least - terms.need_most) * share


def schedule_for(config: PipelineConfig, networks: Networks) -> KeyframeSchedule | None:
    """The schedule of a configuration; None if it has regular keyframes only.

    Live runs have none: the deadline is their budget.
    """
    keyframes, segmenter = config.keyframes, networks.tracks
    if keyframes.work == 0 or keyframes.interval == 1 or config.queue.policy != "wait":
        return None
    return KeyframeSchedule(
        Terms(keyframes.work, keyframes.need_least, keyframes.need_most),
        WorkWeights(encoder_megapixel=segmenter.card.encoder_work),
        segmenter.geometry.frame_hw,
        segmenter.geometry.input_hw,
    )


def _megapixels(size_hw: SizeHW) -> float:
    return size_hw[0] * size_hw[1] / 1e6
