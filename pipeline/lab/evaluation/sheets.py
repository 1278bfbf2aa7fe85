"""Contact sheets of an evaluation: the best and the worst mask of every source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskstream.pipeline.lab.evaluation.examples import BoolMap, Example
from maskstream.pipeline.lab.evaluation.scores import Ious
from maskstream.pipeline.rendering.contact_sheet import write_sheet
from maskstream.pipeline.rendering.draw import draw_tag
from maskstream.pipeline.segmenter.geometry import boxes_of
from maskstream.pipeline.types import RgbImage

SHOWN = ("box", "click1")
"""Measures whose masks are shown."""

_TILE_PX, _COLUMNS = 200, 7
_MARGIN = 0.25  # around an object, as a share of the long side of its box
_ANSWER, _TRUTH = (255, 64, 160), (255, 255, 255)
_OPACITY = 0.5


@dataclass(frozen=True, slots=True)
class _Tile:
    iou: float
    image: RgbImage


class AnswerSheets:
    """Keeps a tile of the best and of the worst mask for each prompt and source."""

    def __init__(self) -> None:
        self._best: dict[tuple[str, str], _Tile] = {}
        self._worst: dict[tuple[str, str], _Tile] = {}

    def of(self, source: str, example: Example) -> Callable[[str, BoolMap, Ious], None]:
        """A callback for the predicted masks bool [P, H, W] of an example and their IoU [P]."""

        def update(measure: str, answers: BoolMap, ious: Ious) -> None:
            if measure not in SHOWN:
                return
            key = measure, source
            best, worst = int(np.argmax(ious)), int(np.argmin(ious))
            if key not in self._best or ious[best] > self._best[key].iou:
                self._best[key] = _tile(source, example, answers, ious, best)
            if key not in self._worst or ious[worst] < self._worst[key].iou:
                self._worst[key] = _tile(source, example, answers, ious, worst)

        return update

    def write(self, folder: Path) -> list[Path]:
        """Write `box-best.jpg`, `box-worst.jpg` and so on. Raises `StoreError`."""
        files = []
        for name, tiles in (("best", self._best), ("worst", self._worst)):
            for measure in SHOWN:
                chosen = [tile.image for (of, _), tile in tiles.items() if of == measure]
                files.append(folder / f"{measure}-{name}.jpg")
                write_sheet(files[-1], chosen, _COLUMNS)
        return files


def _tile(source: str, example: Example, answers: BoolMap, ious: Ious, index: int) -> _Tile:
    """A square around an object and its mask: the mask tinted, the ground truth outlined."""
    truth, answer = example.masks[index], answers[index]
    x0, y0, x1, y1 = boxes_of((truth | answer)[None])[0]
    side = int(np.ceil((1 + 2 * _MARGIN) * max(x1 - x0, y1 - y0)))
    to_tile = np.array([[1, 0, -(x0 + x1 - side) / 2], [0, 1, -(y0 + y1 - side) / 2]])
    to_tile *= _TILE_PX / side
    size = (_TILE_PX, _TILE_PX)
    image = np.asarray(cv2.warpAffine(example.rgb, to_tile, size), np.uint8)
    shown, object_ = (
        cv2.warpAffine(mask.astype(np.float32), to_tile, size) > 0.5 for mask in (answer, truth)
    )
    tint = np.array(_ANSWER, np.float32)
    image[shown] = (1 - _OPACITY) * image[shown] + _OPACITY * tint
    outline = cv2.morphologyEx(object_.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))
    image[outline > 0] = _TRUTH
    draw_tag(image, (0, 0), f"{source} {100 * ious[index]:.0f}", (0, 0, 0))
    return _Tile(float(ious[index]), image)
