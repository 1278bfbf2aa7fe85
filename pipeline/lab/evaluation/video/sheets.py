"""Contact sheets of an evaluated clip: ground truth above prediction."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from maskstream.pipeline.lab.evaluation.video.clips import SequenceTask
from maskstream.pipeline.lab.evaluation.video.predictions import KeptLabels
from maskstream.pipeline.rendering.contact_sheet import write_sheet
from maskstream.pipeline.rendering.draw import draw_masks, draw_tag
from maskstream.pipeline.types import LabelMap, RgbImage

_COLUMNS, _ROWS = 5, 2
_TILE_WIDTH = 384


def write_clip_sheet(path: Path, task: SequenceTask, labels: KeptLabels) -> None:
    """Write evenly spread scored frames as one image, each with the ground truth above the
    prediction, in colors of the objects. Raises `SourceError`, `StoreError`.
    """
    scored = sorted(task.scored)
    places = np.linspace(0, len(scored) - 1, min(len(scored), _COLUMNS * _ROWS))
    chosen = {scored[round(place)] for place in places}
    tiles = []
    with task.clip.source.open() as reader:
        for frame in reader:
            if frame.index not in chosen:
                continue
            height, width = task.size_hw
            size_hw = (max(1, round(height * _TILE_WIDTH / width)), _TILE_WIDTH)
            rgb = frame.rgb(size_hw)
            maps = task.truth(frame.index)[0], labels.at(frame.index)
            tile = np.vstack([_tinted(rgb, found) for found in maps])
            draw_tag(tile, (0, 0), f"frame {frame.index}", (0, 0, 0))
            tiles.append(tile)
    write_sheet(path, tiles, _COLUMNS)


def _tinted(rgb: RgbImage, labels: LabelMap) -> RgbImage:
    """An image with the masks of a label map of another size."""
    size = (rgb.shape[1], rgb.shape[0])
    small = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.uint16)
    return draw_masks(rgb, small, np.unique(small[small > 0]).tolist())
