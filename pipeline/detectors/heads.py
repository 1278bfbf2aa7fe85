"""Recognize a detector's outputs by their shapes and names, and decode them.

Layouts (checked against the exporters' documentation, November 2026):

    yolo      [1, 4 + classes, N] (v8, 11), [1, N, 5 + classes] (v5, v7, YOLOX); with prototypes
              [1, M, h, w] as a second output, M mask coefficients follow each box (-seg, FastSAM)
    end2end   [1, N, 6]: x0, y0, x1, y1, score, class (YOLO26, v10, exports with NMS), or 6 + M
    detr      boxes [1, N, 4] (center and size, shares) and logits [1, N, classes] (RF-DETR, RT-DETR
              of transformers) or [1, N, classes + 1] with a last one for no object (DETR), or both
              in one: [1, N, 4 + classes] (RT-DETR of Ultralytics). With two classes that has the
              shape of end2end, and their values decide
    boxes     boxes [N, 4] with scores and labels (RT-DETR, D-FINE, torchvision), or boxes [N, 5]
              with labels (OpenVINO's); `detection_boxes` are y0, x0, y1, x1 in shares, with classes
              from 1 (TensorFlow's object detection API)
    ssd       [1, 1, N, 7]: image, class, score, x0, y0, x1, y1 in shares (OpenVINO's and Caffe's)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import DetectorError
from maskstream.pipeline.types import SizeHW

FloatArray = npt.NDArray[np.float32]
Outputs = Mapping[str, FloatArray]
HeadName = Literal["yolo", "end2end", "detr", "boxes", "ssd"]

EXPECTED = (
    "YOLO [1, 4 + classes, N] or [1, N, 5 + classes] (with prototypes [1, M, h, w] for masks), "
    "end-to-end YOLO [1, N, 6], DETR boxes [1, N, 4] and logits [1, N, classes], boxes [N, 4] with "
    "scores and labels, or SSD [1, 1, N, 7]"
)
_STRIDES = (4, 8, 16, 32, 64, 128)
_QUERY_NAMES = (("dets", "labels"), ("pred_boxes", "pred_logits"), ("pred_boxes", "logits"))
_MAX_QUERIES = 1000  # of DETRs; YOLO has thousands of anchors
_END2END_WIDTH = 6  # corners, score, class
_SHARE_LIMIT = 2.0  # boxes whose coordinates all lie below are shares of the input, not pixels


@dataclass(frozen=True, slots=True)
class Port:
    """An output of a graph. shape: -1 where a size is not fixed."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RawBoxes:
    """Decoded outputs of one image.

    xyxy: float32 [N, 4], pixels of the network's input. scores: float32 [N]. classes: [N].
    coefficients: float32 [N, M] of the prototypes float32 [M, h, w], which cover the whole input.
    """

    xyxy: FloatArray
    scores: FloatArray
    classes: npt.NDArray[np.int64]
    coefficients: FloatArray | None = None
    prototypes: FloatArray | None = None

    def take(self, chosen: npt.NDArray[np.intp]) -> RawBoxes:
        """Some of the boxes."""
        return RawBoxes(
            self.xyxy[chosen],
            self.scores[chosen],
            self.classes[chosen],
            None if self.coefficients is None else self.coefficients[chosen],
            self.prototypes,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """How to decode a graph's outputs.

    suppress: overlapping boxes of a class are to be suppressed (NMS). letterbox: whether such
    networks are trained on images with bars, rather than stretched ones. unit, imagenet: how their
    input is normalized: 0..1, or then by ImageNet's mean and deviation; else 0..255. masks: the
    boxes have coefficients of prototypes.
    """

    name: HeadName
    decode: Callable[[Outputs], RawBoxes]
    suppress: bool
    letterbox: bool
    unit: bool = True
    imagenet: bool = False
    masks: bool = False


def recognize_head(
    ports: Sequence[Port],
    input_hw: SizeHW,
    *,
    sample: Callable[[], Outputs],
    class_numbers: Collection[int] = (),
    end2end: bool = False,
    forced: HeadName | None = None,
) -> Head:
    """Recognize the outputs of a graph.

    sample: its outputs for any image, asked for where shapes fit several layouts. class_numbers:
    numbers of the classes that have names, none if they are unknown. end2end: the metadata say so.
    forced: the layout.

    Raises:
        DetectorError: the outputs fit none, with what was found and what is expected.
    """
    finders: dict[HeadName, Callable[[], Head | None]] = {
        "detr": lambda: _queries(ports, input_hw, sample, class_numbers, end2end, forced),
        "boxes": lambda: (
            _detection_boxes(ports, input_hw, class_numbers) or _boxes(ports, input_hw)
        ),
        "ssd": lambda: _ssd(ports, input_hw),
        "end2end": lambda: _end2end(ports, input_hw, end2end, forced),
        "yolo": lambda: _yolo(ports, input_hw, len(class_numbers)),
    }
    wanted = [finders[forced]] if forced else list(finders.values())
    found = next((head for find in wanted if (head := find()) is not None), None)
    if found is None:
        shapes = ", ".join(f"{p.name} {list(p.shape)}" for p in ports)
        what = f"no {forced} head" if forced else "no detector"
        raise DetectorError(f"its outputs are of {what} ({shapes}); expected are {EXPECTED}")
    return found


def _queries(
    ports: Sequence[Port],
    input_hw: SizeHW,
    sample: Callable[[], Outputs],
    class_numbers: Collection[int],
    end2end: bool,
    forced: HeadName | None,
) -> Head | None:
    """DETR: boxes and logits apart, by their names, or boxes and probabilities in one output."""
    widths = {port.name: port.shape[-1] for port in ports if port.shape}
    for boxes, logits in _QUERY_NAMES:
        if widths.get(boxes) == 4 and widths.get(logits, 1) > 1:
            no_object = widths[logits] == max(class_numbers, default=-1) + 2
            return _apart(boxes, logits, input_hw, no_object=no_object)
    if len(ports) != 1 or len(ports[0].shape) != 3 or end2end:
        return None
    _, count, width = ports[0].shape
    fits = class_numbers and width == 4 + len(class_numbers) and count < _MAX_QUERIES
    if not (forced == "detr" or fits) or _is_anchors(count, input_hw):
        return None
    name = ports[0].name
    if forced is None and width == _END2END_WIDTH and _has_class_numbers(sample()[name][0]):
        return None
    return _joined(name, input_hw)


def _has_class_numbers(rows: FloatArray) -> bool:
    """Whether rows of six are corners in pixels, score and class, not shares and probabilities."""
    return not _are_shares(rows[:, :4]) or bool((rows[:, 5] == np.rint(rows[:, 5])).all())


def _apart(boxes: str, logits: str, input_hw: SizeHW, *, no_object: bool) -> Head:
    """DETR with outputs of these names; those of RF-DETR and DETR were trained with ImageNet's.

    no_object: the last class is "no object", so classes exclude each other (softmax).
    """

    def decode(outputs: Outputs) -> RawBoxes:
        values = outputs[logits][0]
        if no_object:
            shares = np.exp(values - values.max(1, keepdims=True))
            probability = shares[:, :-1] / shares.sum(1, keepdims=True)
        else:
            with np.errstate(over="ignore"):
                probability = 1 / (1 + np.exp(-values))
        return _from_shares(outputs[boxes][0], probability, input_hw)

    imagenet = boxes == "dets" or no_object
    return Head("detr", decode, suppress=False, letterbox=False, imagenet=imagenet)


def _joined(name: str, input_hw: SizeHW) -> Head:
    """DETR with one output, boxes and probabilities."""

    def decode(outputs: Outputs) -> RawBoxes:
        rows = outputs[name][0]
        return _from_shares(rows[:, :4], rows[:, 4:], input_hw)

    return Head("detr", decode, suppress=False, letterbox=False)


def _detection_boxes(
    ports: Sequence[Port], input_hw: SizeHW, class_numbers: Collection[int]
) -> Head | None:
    """TensorFlow's object detection API, by its names; rows of score 0 fill the rest."""
    names = {port.name for port in ports}
    if not {"detection_boxes", "detection_scores", "detection_classes"} <= names:
        return None
    first = 1 if 0 in class_numbers else 0  # names that are counted from 0 begin at class 1

    def decode(outputs: Outputs) -> RawBoxes:
        rows = outputs["detection_boxes"].reshape(-1, 4)
        classes = outputs["detection_classes"].ravel().astype(np.int64)
        boxes = rows[:, [1, 0, 3, 2]] * _tiled(input_hw)
        return RawBoxes(boxes, outputs["detection_scores"].ravel(), classes - first)

    return Head("boxes", decode, suppress=False, letterbox=False, unit=False)


def _boxes(ports: Sequence[Port], input_hw: SizeHW) -> Head | None:
    """Boxes with labels, and scores of their own or as a fifth column."""
    boxes = [p for p in ports if p.shape and p.shape[-1] in (4, 5) and len(p.shape) in (2, 3)]
    labels = [p for p in ports if "label" in p.name or "class" in p.name]
    scores = [p for p in ports if "score" in p.name or "conf" in p.name]
    if len(boxes) != 1 or len(labels) != 1 or labels[0].shape == boxes[0].shape:
        return None
    box, label = boxes[0], labels[0]
    if (box.shape[-1] == 5) == bool(scores) or len(scores) > 1:
        return None

    def decode(outputs: Outputs) -> RawBoxes:
        rows = outputs[box.name].reshape(-1, box.shape[-1])
        score = outputs[scores[0].name].ravel() if scores else rows[:, 4]
        return RawBoxes(
            _to_pixels(rows[:, :4], input_hw), score, outputs[label.name].ravel().astype(np.int64)
        )

    return Head("boxes", decode, suppress=True, letterbox=False)


def _ssd(ports: Sequence[Port], input_hw: SizeHW) -> Head | None:
    port = next((p for p in ports if len(p.shape) == 4 and p.shape[-1] == 7), None)
    if port is None:
        return None

    def decode(outputs: Outputs) -> RawBoxes:
        rows = outputs[port.name].reshape(-1, 7)
        rows = rows[rows[:, 0] >= 0]  # a row with image -1 ends them
        boxes = rows[:, 3:] * _tiled(input_hw)
        return RawBoxes(boxes, rows[:, 2], rows[:, 1].astype(np.int64))

    return Head("ssd", decode, suppress=False, letterbox=False, unit=False)


def _end2end(
    ports: Sequence[Port], input_hw: SizeHW, end2end: bool, forced: HeadName | None
) -> Head | None:
    rows, proto = _rows_and_prototypes(ports)
    if rows is None:
        return None
    masks = 0 if proto is None else proto.shape[1]
    _, count, width = rows.shape
    known = end2end or forced == "end2end" or not _is_anchors(count, input_hw)
    if width != _END2END_WIDTH + masks or not known:
        return None

    def decode(outputs: Outputs) -> RawBoxes:
        values = outputs[rows.name][0]
        return RawBoxes(
            values[:, :4],
            values[:, 4],
            values[:, 5].astype(np.int64),
            values[:, _END2END_WIDTH:] if masks else None,
            None if proto is None else outputs[proto.name][0],
        )

    return Head("end2end", decode, suppress=False, letterbox=True, masks=masks > 0)


def _yolo(ports: Sequence[Port], input_hw: SizeHW, class_count: int) -> Head | None:
    rows, proto = _rows_and_prototypes(ports)
    if rows is None or min(rows.shape[1:]) < 0:
        return None
    masks = 0 if proto is None else proto.shape[1]
    channels_first = rows.shape[1] < rows.shape[2]
    values, count = sorted(rows.shape[1:])
    classes = values - 4 - masks
    objectness = not channels_first
    if class_count:
        fits = {classes: False} if channels_first else {classes: False, classes - 1: True}
        if class_count not in fits:
            other = "" if channels_first else f" (or {classes - 1} and objectness)"
            labels = "label is" if class_count == 1 else "labels are"
            raise DetectorError(
                f"its output {rows.name} {list(rows.shape)} has {classes} classes{other}, "
                f"but {class_count} {labels} given"
            )
        objectness = fits[class_count]
    if classes - objectness < 1 or not _is_anchors(count, input_hw):
        return None

    def decode(outputs: Outputs) -> RawBoxes:
        each = outputs[rows.name][0]
        each = each.T if channels_first else each
        first = 4 + objectness
        scores = each[:, first : len(each[0]) - masks]
        kind = scores.argmax(1)
        best = scores[np.arange(len(scores)), kind]
        return RawBoxes(
            _corners(each[:, :4]),
            best * each[:, 4] if objectness else best,
            kind,
            each[:, len(each[0]) - masks :] if masks else None,
            None if proto is None else outputs[proto.name][0],
        )

    return Head("yolo", decode, suppress=True, letterbox=True, masks=masks > 0)


def _rows_and_prototypes(ports: Sequence[Port]) -> tuple[Port | None, Port | None]:
    """The one output of boxes [1, ., .], and that of prototypes [1, M, h, w], if there is one.

    The raw maps [1, 3, h, w, .] of older exports of YOLOv5 are left aside.
    """
    prototypes = [p for p in ports if len(p.shape) == 4]
    rows = [p for p in ports if len(p.shape) == 3]
    raw = [p for p in ports if len(p.shape) == 5]
    if len(rows) != 1 or len(prototypes) > 1 or len(ports) != len(rows + prototypes + raw):
        return None, None
    return rows[0], prototypes[0] if prototypes else None


def _is_anchors(count: int, input_hw: SizeHW) -> bool:
    """Whether a count is that of all cells of successive strides, once or three times."""
    height, width = input_hw
    cells = [(height // stride) * (width // stride) for stride in _STRIDES]
    sums = {
        sum(cells[first:last])
        for first in range(len(cells))
        for last in range(first + 2, len(cells) + 1)
    }
    return any(count == times * total for times in (1, 2, 3) for total in sums)


def _from_shares(boxes: FloatArray, scores: FloatArray, input_hw: SizeHW) -> RawBoxes:
    """The best class of every query; boxes are center and size in shares of the input."""
    kind = scores.argmax(1)
    best = scores[np.arange(len(scores)), kind]
    return RawBoxes(_corners(boxes) * _tiled(input_hw), best, kind)


def _to_pixels(boxes: FloatArray, input_hw: SizeHW) -> FloatArray:
    return boxes * _tiled(input_hw) if _are_shares(boxes) else boxes


def _are_shares(boxes: FloatArray) -> bool:
    return boxes.size > 0 and float(np.abs(boxes).max()) < _SHARE_LIMIT


def _corners(boxes: FloatArray) -> FloatArray:
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def _tiled(input_hw: SizeHW) -> FloatArray:
    height, width = input_hw
    return np.array([width, height, width, height], np.float32)
