"""Masks with errors that a click should correct: of the tracker, and of annotated images."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.lab.evaluation.clicks import first_clicks
from maskstream.pipeline.lab.evaluation.examples import BoolMap, Example, ImageSet, spread
from maskstream.pipeline.lab.evaluation.scores import SegmenterFor, frame_of, full_size
from maskstream.pipeline.lab.evaluation.video.clips import ClipEntry, SequenceTask, set_task
from maskstream.pipeline.lab.evaluation.video.evaluate import follow, prompts_for
from maskstream.pipeline.lab.evaluation.video.predictions import KeptLabels
from maskstream.pipeline.segmenter.geometry import boxes_of
from maskstream.pipeline.segmenter.model import PromptBatch, Segmenter, best_of_three
from maskstream.pipeline.types import RgbImage
from maskstream.trackers.iou import mask_iou

Kind = Literal["videos", "images"]

IOU_RANGE = 0.3, 0.9
"""IoU of the masks to be corrected."""

SMALLEST_PX = 100
"""Area from which an object is corrected."""

PER_OBJECT = 10
"""Maximum of cases per object of a video, evenly spread over its frames."""

PER_SEQUENCE = 30
"""Maximum of cases per video, evenly spread over those of its objects."""

PER_IMAGE = 3
"""Maximum of cases per image, of different objects."""

_JITTER = 0.15  # of a box's sides, standard deviation
_LOST = 0.2, 0.6  # share of an object that is lost
_BESIDE = 0.3  # of the square root of an object's area: what lies no farther is beside it


@dataclass(frozen=True, slots=True)
class CorrectionCase:
    """A mask to be corrected.

    rgb: uint8 [H, W, 3]; truth, mask: bool [H, W]. scene: cases of one scene are not independent.
    error: how the mask was made.
    """

    kind: Kind
    scene: str
    error: str
    rgb: RgbImage
    truth: BoolMap
    mask: BoolMap


def video_cases(
    config: PipelineConfig,
    clips: Sequence[ClipEntry],
    on_run: Callable[[str], None] = lambda _: None,
) -> Iterator[CorrectionCase]:
    """Cases of videos: every object is tracked from its first mask, and its tracked masks taken.

    Raises `SourceError`, `ModelError`.
    """
    pipeline = Pipeline(config.without_seeding())
    for entry in clips:
        on_run(entry.name)
        task = set_task(entry.name, entry.load())
        wanted = task.scored.keys()
        labels = follow(pipeline, entry.name, task, prompts_for(task, "mask"), wanted).labels
        chosen = _wrong_masks(task, labels)
        with task.clip.source.open() as reader:
            for frame in reader:
                for number in chosen.get(frame.index, ()):
                    truth, valid = task.truth(frame.index)
                    answer = (labels.at(frame.index) == number) & valid
                    rgb = frame.rgb(task.size_hw)
                    scene = f"{entry.name}/{number}"
                    yield CorrectionCase("videos", scene, "tracked", rgb, truth == number, answer)


def _wrong_masks(task: SequenceTask, labels: KeptLabels) -> Mapping[int, Sequence[int]]:
    """Objects whose tracked mask is wrong, by frame."""
    wrong: dict[int, list[int]] = {number: [] for number in task.objects}
    for frame, numbers in task.scored.items():
        truth, valid = task.truth(frame)
        answer = np.where(valid, labels.at(frame), 0)
        for number in numbers:
            if _is_case(answer == number, truth == number):
                wrong[number].append(frame)
    pairs = [(i, frame) for i, frames in wrong.items() for frame in spread(frames, PER_OBJECT)]
    chosen: dict[int, list[int]] = {}
    for number, frame in spread(pairs, PER_SEQUENCE):
        chosen.setdefault(frame, []).append(number)
    return chosen


def image_cases(
    segmenter_for: SegmenterFor,
    sets: Sequence[ImageSet],
    on_image: Callable[[str], None] = lambda _: None,
) -> Iterator[CorrectionCase]:
    """Cases of annotated images: answers of the network to one click or an inexact box, and masks
    that have lost a part or taken one of a neighbor, as masks that drift do. Raises `SourceError`.
    """
    for images in sets:
        on_image(images.name)
        for number, item in enumerate(images.items):
            example = item.load()
            height, width, _ = example.rgb.shape
            seed = zlib.crc32(f"{images.name}/{number}".encode())
            made = _wrong_answers(segmenter_for((height, width)), example, seed)
            for error, index, mask in made:
                truth = example.masks[index]
                scene = f"{images.name}/{number}"
                yield CorrectionCase("images", scene, error, example.rgb, truth, mask)


def _wrong_answers(
    segmenter: Segmenter, example: Example, seed: int
) -> list[tuple[str, int, BoolMap]]:
    """How each mask was made, the index of its object, and the mask."""
    if not len(example.masks):
        return []
    rng = np.random.default_rng(seed)
    maker = _ErrorMaker(segmenter, example, rng)
    found: list[tuple[str, int, BoolMap]] = []
    for turn, index in enumerate(rng.permutation(len(example.masks)).tolist()):
        error, make = maker.kinds[(seed + turn) % len(maker.kinds)]
        mask = make(index)
        if _is_case(mask, example.masks[index]):
            found.append((error, index, mask))
        if len(found) == PER_IMAGE:
            break
    return found


class _ErrorMaker:
    """Makes wrong masks bool [H, W] of the objects of one image, by their index."""

    def __init__(self, segmenter: Segmenter, example: Example, rng: np.random.Generator) -> None:
        self._segmenter = segmenter
        self._masks = example.masks
        self._rng = rng
        self._features = segmenter.encode(frame_of(example.rgb))
        self.kinds: tuple[tuple[str, Callable[[int], BoolMap]], ...] = (
            ("click", self._click),
            ("box", self._box),
            ("lost", self._lost),
            ("taken", self._taken),
        )

    def _click(self, index: int) -> BoolMap:
        """The answer to a click on the center of the object."""
        return self._answer(first_clicks(self._masks[index, None]).xy[0])

    def _box(self, index: int) -> BoolMap:
        """The answer to an inexact box."""
        box = boxes_of(self._masks[index, None])[0]
        moved = box + self._rng.normal(0, _JITTER, 4) * np.tile(box[2:] - box[:2], 2)
        low, high = np.minimum(moved[:2], moved[2:]), np.maximum(moved[:2], moved[2:])
        prompt = PromptBatch.boxes(np.concatenate([np.maximum(low, 0), high + 1]))
        decoded = self._segmenter.decode(self._features, prompt)
        return np.asarray(full_size(self._segmenter.geometry, decoded.masks[:, 0])[0])

    def _lost(self, index: int) -> BoolMap:
        """The object without what lies beyond a random line."""
        mask = self._masks[index]
        angle = self._rng.uniform(0, 2 * np.pi)
        y, x = np.indices(mask.shape)
        along = x * np.cos(angle) + y * np.sin(angle)
        share = self._rng.uniform(*_LOST)
        return np.asarray(mask & (along <= np.quantile(along[mask], 1 - share)))

    def _taken(self, index: int) -> BoolMap:
        """The object with a neighbor, or with what a click beside it gives if none is labeled."""
        mask = self._masks[index]
        size = int(_BESIDE * np.sqrt(mask.sum())) | 1
        beside = (cv2.dilate(mask.view(np.uint8), np.ones((size, size), np.uint8)) > 0) & ~mask
        neighbors = [other for other in self._masks if (other & beside).any() and other is not mask]
        if neighbors:
            return np.asarray(mask | neighbors[int(self._rng.integers(len(neighbors)))])
        places = np.argwhere(beside)[:, ::-1].astype(np.float32)
        if not len(places):
            return np.asarray(mask)
        return np.asarray(mask | self._answer(places[None, self._rng.integers(len(places))] + 0.5))

    def _answer(self, xy: npt.NDArray[np.float32]) -> BoolMap:
        """The best answer to a click at xy [1, 2]."""
        decoded = self._segmenter.decode(self._features, PromptBatch.points(xy[None]))
        chosen = decoded.masks[:, best_of_three(decoded)[0]]
        return np.asarray(full_size(self._segmenter.geometry, chosen)[0])


def _is_case(mask: BoolMap, truth: BoolMap) -> bool:
    low, high = IOU_RANGE
    return int(truth.sum()) >= SMALLEST_PX and low <= mask_iou(mask, truth) <= high
