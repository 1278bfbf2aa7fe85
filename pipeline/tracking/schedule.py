"""Keyframes by need: which frames of a file become keyframes, within a budget of work.

Work is counted, not timed: a clock would make two runs choose differently. Every frame earns the
time until it is due; its own work is taken off, and what is left buys keyframes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.segmenter.model import Segmenter
from maskstream.pipeline.types import SizeHW

LEAST_STEP_S = 1 / 30
"""A clip of more frames a second is budgeted as one of 30."""
MOST_STEP_S = 1 / 10
"""A frame earns no more than this, however long it is shown."""
NOTICE = 2
"""Frames between seeing a need and the keyframe: the encoder works ahead of the tracker."""


@dataclass(frozen=True, slots=True)
class WorkWeights:
    """What work counts, milliseconds of the two cores it was set on (docs/measurements/speed.md).

    frame, frame_megapixel: of any frame, its displayed size. propagated: of an object on any frame.
    keyframe, encoder_megapixel: of a keyframe, its size at the encoder's input. looked_at: of an
    object that a keyframe looks at.
    """

    frame: float = 1.0
    frame_megapixel: float = 2.2
    propagated: float = 0.6
    keyframe: float = 1.0
    encoder_megapixel: float = 300.0
    looked_at: float = 2.5


@dataclass(frozen=True, slots=True)
class Terms:
    """What an account allows.

    work: share of a clip's own time that a run may work. need_least, need_most: need
    (`maskstream.trackers.need.Need.due`) that buys a keyframe with all the credit that can be
    saved, and with none beyond its cost. saved: credit that can be saved, in keyframes.
    """

    work: float
    need_least: float
    need_most: float
    saved: float = 6.0


class KeyframeSchedule:
    """The account of one run: frames earn, keyframes cost, and needs buy them.

    Keyframes that must be (regular ones, cuts, prompts, objects that moved far) are taken off as
    well, if need be into debt, so that the others wait. It begins with all that can be saved.
    frame_hw: displayed size; input_hw: the
    encoder's. credit: milliseconds by the weights.
    """

    def __init__(
        self, terms: Terms, weights: WorkWeights, frame_hw: SizeHW, input_hw: SizeHW
    ) -> None:
        self.credit = math.inf  # all that can be saved, once it is known for how many objects
        self._terms = terms
        self._weights = weights
        self._frame = weights.frame + weights.frame_megapixel * _megapixels(frame_hw)
        self._keyframe = weights.keyframe + weights.encoder_megapixel * _megapixels(input_hw)

    def income(self, step_s: float, objects: int) -> float:
        """What is left for keyframes of a frame that comes `step_s` after the one before."""
        step_s = min(max(step_s, LEAST_STEP_S), MOST_STEP_S)
        return 1000 * self._terms.work * step_s - self._frame - self._weights.propagated * objects

    def cost(self, objects: int) -> float:
        """Of a keyframe that looks at so many objects."""
        return self._keyframe + self._weights.looked_at * objects

    def earn(self, step_s: float, objects: int) -> None:
        """Take in a frame with so many objects; credit and debt have a bound."""
        most = self._terms.saved * self.cost(objects)
        self.credit = max(-most, min(self.credit + self.income(step_s, objects), most))

    def pay(self, objects: int) -> None:
        """Take in a keyframe that looks at so many objects."""
        self.credit -= self.cost(objects)

    def buys(self, need: float, objects: int) -> bool:
        """Whether a need is worth a keyframe that looks at so many objects, and there is credit."""
        spare = self.credit / self.cost(objects) - 1
        if spare < 0:
            return False
        terms = self._terms
        share = min(1.0, spare / (terms.saved - 1))
        return need >= terms.need_most + (terms.need_least - terms.need_most) * share


def schedule_for(config: PipelineConfig, segmenter: Segmenter) -> KeyframeSchedule | None:
    """The account that a configuration asks for; None if it wants regular keyframes only.

    Where frames do not wait (live), the deadline is the budget.
    """
    keyframes, geometry = config.keyframes, segmenter.geometry
    if keyframes.work == 0 or keyframes.interval == 1 or config.queue.policy != "wait":
        return None
    return KeyframeSchedule(
        Terms(keyframes.work, keyframes.need_least, keyframes.need_most),
        WorkWeights(encoder_megapixel=segmenter.card.encoder_work),
        geometry.frame_hw,
        geometry.input_hw,
    )


def _megapixels(size_hw: SizeHW) -> float:
    return size_hw[0] * size_hw[1] / 1e6
