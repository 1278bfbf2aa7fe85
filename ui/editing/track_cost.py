"""Estimated duration of tracking with each choice of quality."""

from __future__ import annotations

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.prompts import Quality
from maskstream.pipeline.segmenter.model import Segmenter
from maskstream.pipeline.tracking.schedule import KeyframeSchedule, Terms, WorkWeights
from maskstream.pipeline.types import SizeHW

QUALITIES: tuple[Quality | None, ...] = ("draft", None, "final")


def frame_ms(
    config: PipelineConfig, segmenter: Segmenter, frame_hw: SizeHW, objects: int, fps: float
) -> dict[Quality | None, float]:
    """Milliseconds a frame of every quality, on the machine of the estimates (`WorkWeights`)."""
    keyframes = config.keyframes
    schedule = KeyframeSchedule(
        Terms(keyframes.work, keyframes.need_least, keyframes.need_most),
        WorkWeights(encoder_megapixel=segmenter.card.encoder_work),
        frame_hw,
        segmenter.geometry.input_hw,
    )
    plain, keyframe = schedule.frame_work(objects), schedule.cost(objects)
    least, most = plain + keyframe / keyframes.interval, plain + keyframe
    budget = 1000 * keyframes.work / min(max(fps, 10.0), 30.0)
    return {"draft": least, None: min(max(least, budget), most), "final": most}
