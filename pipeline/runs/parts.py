"""Parts of a long video: it is cut where scenes change, so that its parts can run in parallel."""

from __future__ import annotations

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.tracking.cuts import CutDetector
from maskstream.pipeline.tracking.steps import DEFAULT_FRAME_INTERVAL_S
from maskstream.pipeline.types import Source

Part = tuple[int, int]
"""A part of a video: the index of its first frame, and the one to stop before."""


def parts_of(source: Source, config: PipelineConfig, part_min_s: float) -> list[Part]:
    """Cut a video at scene cuts into parts of at least `part_min_s` seconds, in order.

    Shots that are shorter are put together; a rest that is shorter belongs to the part before it.
    No part begins where a recording starts anew. A video that is shorter or damaged is one part.

    The whole video is decoded, and nothing of it is kept. Raises `SourceError`, `ConfigError`.
    """
    begins: list[tuple[int, float]] = []  # frame index and time of each part's first frame
    end, now_s = 0, 0.0
    with source.open() as reader:
        cuts = CutDetector(config, reader.info.size_hw)
        for frame in reader:
            given = frame.pts_s
            now_s = now_s + DEFAULT_FRAME_INTERVAL_S if given is None else given
            is_cut = cuts.is_cut(frame) and not frame.jump_s
            if not begins or (is_cut and now_s - begins[-1][1] >= part_min_s):
                begins.append((frame.index, now_s))
            end = frame.index + 1
        damaged = reader.report.corrupt_packets > 0  # frames may be counted in two ways
    if damaged:
        return [(begins[0][0], end)]
    if len(begins) > 1 and now_s - begins[-1][1] < part_min_s:
        begins.pop()
    firsts = [index for index, _ in begins]
    return list(zip(firsts, [*firsts[1:], end], strict=True))


def check_splittable(config: PipelineConfig) -> None:
    """Raise `ConfigError` if parts of a video cannot be run as the configuration wants."""
    if config.detector.detections is not None:
        raise ConfigError(
            f"--split-shots goes with detectors, not with a file of detections "
            f"({config.detector.detections}), of which most parts would find none."
        )
