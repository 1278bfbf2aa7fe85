"""A detector that reads what another one has found: COCO JSON, or JSON lines, a frame each.

COCO JSON is a list of results (`image_id`, `category_id`, `bbox` [x, y, width, height], `score`,
maybe `segmentation`), as ViTDet and GroundingDINO write it, or a data set with `annotations` and
`categories`. `image_id` is the frame index. A JSON line is
`{"frame": 0, "detections": [{"xyxy": [x0, y0, x1, y1], "label": "car", "score": 0.9}]}`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from maskstream.pipeline.detectors.detector import DetectedBox
from maskstream.pipeline.detectors.given import GivenBox, Number, Score
from maskstream.pipeline.detectors.labels import Labels, categories, given_labels, label_of
from maskstream.pipeline.errors import DetectorError
from maskstream.pipeline.types import Frame, SizeHW

JSON_LINES = (".jsonl", ".ndjson")
"""Suffixes of files of JSON lines."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    frame: int = Field(ge=0)
    detections: tuple[GivenBox, ...]


class _CocoResult(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    image_id: int = Field(ge=0)
    category_id: int = 0
    bbox: tuple[Number, Number, Number, Number]
    score: Score = 1.0
    segmentation: Any = None

    def given(self, labels: Labels) -> GivenBox:
        """As a box with a label."""
        x, y, width, height = self.bbox
        return GivenBox(
            xyxy=(x, y, x + width, y + height),
            label=label_of(labels, self.category_id),
            score=self.score,
            segmentation=self.segmentation or None,
        )


class FileDetector:
    """Detections of a file, by frame index.

    labels: names of the category ids (`given_labels`), where the file has no categories.

    Raises:
        DetectorError: the file is missing or malformed; the message names the line or the entry.
    """

    def __init__(self, file: Path, *, labels: Sequence[str] = ()) -> None:
        self.name = file.name
        self.file = file
        self._boxes = _read(file, given_labels(labels))
        self.frames: Collection[int] = frozenset(self._boxes)
        found = (box.label for boxes in self._boxes.values() for box in boxes)
        self.labels = tuple(dict.fromkeys(found))

    def check(self, size_hw: SizeHW) -> None:
        """Check that every box has a part inside images of this size, and every mask is of it."""
        for frame, boxes in self._boxes.items():
            for number in range(len(boxes)):
                self._detected(frame, number, size_hw)

    def detect(self, frame: Frame) -> Sequence[DetectedBox]:
        """The file's detections of the frame; none if it has none."""
        count = len(self._boxes.get(frame.index, ()))
        return [self._detected(frame.index, number, frame.size_hw) for number in range(count)]

    def _detected(self, frame: int, number: int, size_hw: SizeHW) -> DetectedBox:
        try:
            return self._boxes[frame][number].detected(size_hw)
        except (ValueError, TypeError) as error:
            place = f"frame {frame}, detection {number}"
            raise DetectorError(f"{self.file}, {place}: {error}") from error


def _read(file: Path, labels: Labels) -> dict[int, list[GivenBox]]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise DetectorError(f"cannot read the detections {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DetectorError(f"{file} is not a text file") from error
    if file.suffix.lower() in JSON_LINES:
        return _by_frame((each.frame, each.detections) for each in _lines(file, text))
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DetectorError(
            f"{file} is not JSON ({error}); a file with a line a frame has the suffix .jsonl"
        ) from error
    if isinstance(values, Mapping):
        labels = categories(values.get("categories", ())) or labels
        values = values.get("annotations")
    if not isinstance(values, list):
        raise DetectorError(
            f"{file} holds no detections: it takes a list of COCO results, or 'annotations' and "
            "'categories'"
        )
    try:
        results = TypeAdapter(list[_CocoResult]).validate_python(values)
        return _by_frame((each.image_id, [each.given(labels)]) for each in results)
    except ValidationError as error:
        raise DetectorError(f"{file}: {_problem(error, 'detection')}") from error


def _lines(file: Path, text: str) -> Iterator[_Line]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield _Line.model_validate_json(line)
        except ValidationError as error:
            raise DetectorError(f"{file}, line {number}: {_problem(error, '')}") from error


def _by_frame(found: Iterator[tuple[int, Sequence[GivenBox]]]) -> dict[int, list[GivenBox]]:
    boxes: dict[int, list[GivenBox]] = {}
    for frame, given in found:
        boxes.setdefault(frame, []).extend(given)
    return boxes


def _problem(error: ValidationError, what: str) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    known = {"extra_forbidden": "unknown key", "json_invalid": "not JSON"}
    message = known.get(problem["type"], problem["msg"])
    return f"{f'{what} {place}'.strip()}: {message}" if place else message
