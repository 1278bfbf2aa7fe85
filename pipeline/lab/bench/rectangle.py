"""`bench rectangle`: how encoding an image as a rectangle differs from the padded square.

The same network encodes the same scaled image twice: without padding, as in this project, and
padded below (upright images: at the right) to a square, as in SAM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.quantization.gate import GRID_SIDE, SMALLEST_MASK
from maskstream.pipeline.segmenter.everything import coarse_points
from maskstream.pipeline.segmenter.geometry import FloatMap, InputGeometry
from maskstream.pipeline.segmenter.model import (
    Decoded,
    Features,
    OpenVinoSegmenter,
    PromptBatch,
    best_of_three,
    read_card,
)
from maskstream.pipeline.segmenter.proposals import BoolMap
from maskstream.pipeline.types import RgbImage, SizeHW
from maskstream.trackers.iou import paired_mask_iou
from maskstream.trackers.track import box_of

BAND_STARTS = (0, 1, 2, 4, 8, 16)  # cells from the padded border

Ious = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Band:
    """Cosines of the embedding's cells that are `first` to `last` cells from the padded border."""

    first: int
    last: int
    mean: float
    lowest: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """IoU of the masks of both encodings for the same prompts.

    lowest_tenth: the 10th percentile of the IoU.
    """

    masks: int
    mean: float
    lowest_tenth: float


@dataclass(frozen=True, slots=True)
class RectangleReport:
    """Differences of the two encodings over all images.

    cosine: of the whole valid embedding, mean. masks: by kind of prompt; empty for random weights.
    """

    model: str
    images: int
    rectangle_hw: SizeHW
    square_hw: SizeHW
    cosine: float
    bands: tuple[Band, ...]
    masks: Mapping[str, Agreement]

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Encoded:
    segmenter: OpenVinoSegmenter
    features: Features

    @property
    def embedding(self) -> FloatMap:
        """[C, h, w]."""
        embedding: FloatMap = self.features.tensors["embedding"][0]
        return embedding

    def decode(self, prompts: PromptBatch) -> Decoded:
        return self.segmenter.decode(self.features, prompts)


def bench_rectangle(
    folder: Path, images: Sequence[RgbImage], *, trained: bool = True, threads: int = 2
) -> RectangleReport:
    """Compare both encodings on images of the same size.

    trained: false for random weights, whose masks are not compared. Raises `SourceError`.
    """
    if len({image.shape for image in images}) != 1:
        raise SourceError("rectangle and square are compared on images of the same size")
    card = read_card(folder)
    side = card.long_side
    height, width, _ = images[0].shape
    valid_hw = card.fit((height, width)).valid_hw
    padded = InputGeometry(valid_hw, valid_hw, (side, side), side)
    rectangle = OpenVinoSegmenter(folder, valid_hw, threads=threads)
    square = OpenVinoSegmenter(folder, (side, side), threads=threads)
    wholes: list[float] = []
    cosines: list[FloatMap] = []
    ious: dict[str, list[Ious]] = {}
    for image in images:
        scaled = cv2.resize(image, valid_hw[::-1], interpolation=cv2.INTER_AREA)
        rgb = np.asarray(scaled, np.uint8)
        ours = _Encoded(rectangle, rectangle.encode_rgb(rgb))
        theirs = _Encoded(square, square.encode_rgb(padded.pad(rgb, card.pad_rgb)))
        a, b = (_valid_cells(encoded, valid_hw) for encoded in (ours, theirs))
        wholes.append(float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)))
        cosines.append(cell_cosines(a, b))
        if trained:
            for kind, values in _mask_ious(ours, theirs, valid_hw).items():
                ious.setdefault(kind, []).append(values)
    return RectangleReport(
        model=card.name,
        images=len(images),
        rectangle_hw=rectangle.geometry.input_hw,
        square_hw=(side, side),
        cosine=round(float(np.mean(wholes)), 5),
        bands=bands_of(np.stack(cosines)),
        masks={kind: _agreement(np.concatenate(values)) for kind, values in ious.items()},
    )


def _valid_cells(encoded: _Encoded, valid_hw: SizeHW) -> FloatMap:
    """The part of the embedding [C, h, w] that covers the image."""
    stride = encoded.segmenter.geometry.input_hw[0] // encoded.embedding.shape[1]
    h, w = (-(-n // stride) for n in valid_hw)
    return encoded.embedding[:, :h, :w]


def cell_cosines(a: FloatMap, b: FloatMap) -> FloatMap:
    """Cosine of every cell of two embeddings [C, h, w], as [distance to the padding, along it]."""
    norms = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    cosines = (a * b).sum(0) / norms
    upright = a.shape[1] > a.shape[2]
    return np.asarray((cosines.T if upright else cosines)[::-1], np.float32)


def bands_of(cosines: FloatMap) -> tuple[Band, ...]:
    """Summary of cosines [images, distance, along] by distance."""
    depth = cosines.shape[1]
    edges = [*(start for start in BAND_STARTS if start < depth), depth]
    return tuple(
        Band(
            first,
            end - 1,
            round(float(cosines[:, first:end].mean()), 5),
            round(float(cosines[:, first:end].min()), 5),
        )
        for first, end in pairwise(edges)
    )


def _mask_ious(ours: _Encoded, theirs: _Encoded, valid_hw: SizeHW) -> dict[str, Ious]:
    """IoU by kind of prompt: a grid of points, and the boxes of the square's masks for them.

    Of a point's three masks, the one with the square's highest predicted IoU is compared, and, as a
    stricter test, the one with each encoding's own highest predicted IoU.
    """
    cell = ours.segmenter.geometry.cell
    h, w = (n // cell for n in valid_hw)

    def chosen(decoded: Decoded, index: npt.NDArray[np.intp]) -> BoolMap:
        masks = decoded.masks[np.arange(len(index)), index, :h, :w] > 0
        return np.asarray(masks)

    points = coarse_points(GRID_SIDE) * np.array(valid_hw[::-1], np.float32)
    clicks = PromptBatch.points(points[:, None])
    our_answers, their_answers = ours.decode(clicks), theirs.decode(clicks)
    best = best_of_three(their_answers)
    truth = chosen(their_answers, best)
    ious = {
        "points": _ious(truth, chosen(our_answers, best)),
        "points, each one's best": _ious(truth, chosen(our_answers, best_of_three(our_answers))),
    }
    boxes = [box * cell for box in map(box_of, truth) if box is not None]
    if boxes:
        prompts = PromptBatch.boxes(np.stack(boxes))
        first = np.zeros(len(boxes), np.intp)
        answers = (chosen(encoded.decode(prompts), first) for encoded in (theirs, ours))
        ious["boxes"] = _ious(*answers)
    return ious


def _ious(truth: BoolMap, answer: BoolMap) -> Ious:
    """IoU of masks [B, h, w], without those that are too small for a meaningful IoU."""
    counted = truth.mean((1, 2)) >= SMALLEST_MASK
    return paired_mask_iou(truth[counted], answer[counted])


def _agreement(ious: Ious) -> Agreement:
    if not len(ious):
        return Agreement(0, 1.0, 1.0)
    tenth = float(np.quantile(ious, 0.1))
    return Agreement(len(ious), round(float(ious.mean()), 4), round(tenth, 4))
