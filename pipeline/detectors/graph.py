"""A detector from an ONNX file or an OpenVINO IR, run by OpenVINO on the CPU."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from maskstream.pipeline.detectors.detector import DetectedBox, FloatMap
from maskstream.pipeline.detectors.heads import (
    Head,
    HeadName,
    Port,
    RawBoxes,
    recognize_head,
)
from maskstream.pipeline.detectors.labels import (
    Labels,
    given_labels,
    graph_labels,
    is_single_name,
    label_of,
)
from maskstream.pipeline.detectors.letterbox import Fit, fit_image
from maskstream.pipeline.errors import DetectorError
from maskstream.pipeline.types import Frame, SizeHW

if TYPE_CHECKING:
    from maskstream.pipeline.segmenter.openvino_runtime import ov

Normalization = Literal["unit", "imagenet", "none"]

SUFFIXES = (".onnx", ".xml")
_FREE_SIDE = 640  # of graphs whose input size is not fixed and not in the metadata
_MAX_BOXES = 300  # after suppression, as in YOLO
_SCORE_TOLERANCE = 0.01  # for roundings of quantized graphs
_OUTSIDE = -8.0  # logit outside a detection's own box
_IMAGENET = np.array([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]], np.float32)
_SIZE_INPUTS = ("orig_target_sizes", "target_sizes")


class GraphDetector:
    """A YOLO, DETR or SSD graph, recognized by its outputs (`heads`).

    path: an .onnx or .xml file, or a folder with one. labels: as for `given_labels`; empty: those
    of the metadata. score_min: lower scores are dropped before suppression. nms_iou: IoU above
    which the weaker of two boxes of a class is suppressed. head, normalize, letterbox, bgr: None:
    as the recognized family has it.

    Raises:
        DetectorError: there is no graph, OpenVINO cannot read it, or it is of no detector; the
            message says what is expected.
    """

    frames: Collection[int] | None = None

    def __init__(
        self,
        path: Path,
        *,
        labels: Sequence[str] = (),
        score_min: float = 0.25,
        nms_iou: float = 0.7,
        threads: int = 2,
        head: HeadName | None = None,
        normalize: Normalization | None = None,
        letterbox: bool | None = None,
        bgr: bool = False,
    ) -> None:
        from maskstream.pipeline.segmenter.openvino_runtime import (
            cpu_options,
            ov,
            read_graph,
            reason,
        )

        self.file = find_graph(path)
        self.name = self.file.name
        self._score_min, self._nms_iou, self._bgr = score_min, nms_iou, bgr
        core = ov.Core()
        try:
            model = read_graph(self.file)
        except RuntimeError as error:
            raise DetectorError(
                f"OpenVINO cannot read the detector {self.file}: {reason(error)}; give an "
                "ONNX file or an OpenVINO IR (.xml with its .bin)"
            ) from error
        metadata = _metadata(model)
        task = metadata.get("task", "detect")
        if task not in ("detect", "segment"):
            raise DetectorError(
                f"{self.name} is a network for the task '{task}'; a detector or a segmenter of "
                "objects is expected"
            )
        self._labels: Labels = given_labels(labels) or graph_labels(metadata, self.file)
        if is_single_name(labels) and len(own := graph_labels(metadata, self.file)) > 1:
            raise DetectorError(
                f"there is no file of labels {labels[0]}, and one name is too few for the "
                f"{len(own)} classes of {self.name}"
            )
        self.labels = tuple(self._labels.values())
        try:
            self._image, self._channels_last = self._prepare_inputs(model, metadata)
            self._graph = core.compile_model(model, "CPU", cpu_options(threads))
            ports = [Port(_name_of(p, i), _shape_of(p)) for i, p in enumerate(self._graph.outputs)]
            self._names = [port.name for port in ports]
            self._normalize: Normalization = normalize or "unit"
            self._head: Head = recognize_head(
                ports,
                self.input_hw,
                sample=lambda: self._run(np.full((*self.input_hw, 3), 114, np.uint8)),
                class_numbers=self._labels,
                end2end=_is_end2end(metadata),
                forced=head,
            )
        except RuntimeError as error:
            raise DetectorError(
                f"OpenVINO cannot run the detector {self.file}: {reason(error)}"
            ) from error
        except DetectorError as error:
            name = (
                f"; {labels[0]} is taken for a name: it is no file"
                if is_single_name(labels)
                else ""
            )
            raise DetectorError(f"{self.name} cannot be used: {error}{name}") from error
        default: Normalization = "unit" if self._head.unit else "none"
        self._normalize = normalize or ("imagenet" if self._head.imagenet else default)
        self._letterbox = self._head.letterbox if letterbox is None else letterbox

    @property
    def head(self) -> HeadName:
        """The recognized layout of its outputs."""
        return self._head.name

    @property
    def masks(self) -> bool:
        """Whether its detections have masks."""
        return self._head.masks

    def check(self, size_hw: SizeHW) -> None:
        """Graphs take images of any size."""

    def detect(self, frame: Frame) -> Sequence[DetectedBox]:
        """Run the graph on the frame, scaled to its input."""
        fit = fit_image(frame.size_hw, self.input_hw, letterbox=self._letterbox)
        raw = self._head.decode(self._run(fit.place(frame.rgb(fit.valid_hw))))
        if not (np.isfinite(raw.scores).all() and np.isfinite(raw.xyxy).all()):
            raise DetectorError(f"the detector {self.name} gave values that are not finite")
        self._check_scores(raw.scores)
        kept = raw.take(np.flatnonzero(raw.scores >= self._score_min))
        if self._head.suppress and len(kept.scores):
            kept = kept.take(suppressed(kept, self._nms_iou))
        best = np.argsort(-kept.scores, kind="stable")[:_MAX_BOXES]
        return self._boxes(kept.take(best), fit)

    def _run(self, image: Any) -> dict[str, Any]:
        """Outputs by name for an image of the input's size."""
        outputs = self._graph(self._inputs(image)).values()
        return dict(zip(self._names, map(np.asarray, outputs), strict=True))

    def _check_scores(self, scores: FloatMap) -> None:
        """Refuse logits; rows that fill up the outputs of other heads may have negative scores."""
        low, high = float(scores.min(initial=0)), float(scores.max(initial=0))
        if high > 1 + _SCORE_TOLERANCE or (self.head == "yolo" and low < -_SCORE_TOLERANCE):
            raise DetectorError(
                f"the detector {self.name} gave scores from {low:g} to {high:g}, but scores are 0 "
                "to 1; if they are logits, export it with sigmoid"
            )

    def _boxes(self, raw: RawBoxes, fit: Fit) -> list[DetectedBox]:
        masks = _masks(raw, fit)
        return [
            DetectedBox(
                (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                label_of(self._labels, int(kind)),
                min(1.0, float(score)),
                None if masks is None else masks[i],
            )
            for i, (box, kind, score) in enumerate(
                zip(fit.to_image(raw.xyxy), raw.classes, raw.scores, strict=True)
            )
        ]

    def _prepare_inputs(self, model: Any, metadata: Mapping[str, str]) -> tuple[str, bool]:
        """Fix the input's size; returns the image input's name and whether channels are last."""
        images = [p for p in model.inputs if p.partial_shape.rank.get_length() == 4]
        others = [p for p in model.inputs if p.partial_shape.rank.get_length() != 4]
        if len(images) != 1 or any(p.any_name not in _SIZE_INPUTS for p in others):
            inputs = ", ".join(f"{p.any_name} {p.partial_shape}" for p in model.inputs)
            raise DetectorError(
                f"its inputs are {inputs}; expected is one image [1, 3, h, w] or [1, h, w, 3], and "
                "at most orig_target_sizes"
            )
        port = images[0]
        sizes = [-1 if d.is_dynamic else d.get_length() for d in port.partial_shape]
        last = sizes[3] == 3 and sizes[1] != 3
        if sizes[3 if last else 1] not in (3, -1) or sizes[0] not in (1, -1):
            raise DetectorError(
                f"its input is {port.partial_shape}; expected is one RGB image, [1, 3, h, w] or "
                "[1, h, w, 3]"
            )
        height, width = sizes[1:3] if last else sizes[2:]
        free_h, free_w = _free_size(metadata)
        self.input_hw: SizeHW = (free_h if height < 0 else height, free_w if width < 0 else width)
        name = str(port.any_name)
        shapes: dict[str, list[int]] = {
            name: [1, *self.input_hw, 3] if last else [1, 3, *self.input_hw]
        }
        self._sizes = {str(p.any_name): np.array([self.input_hw[::-1]]) for p in others}
        shapes |= {other: [1, 2] for other in self._sizes}
        model.reshape(shapes)
        self._dtype = port.get_element_type().to_dtype()
        return name, last

    def _inputs(self, image: Any) -> dict[str, Any]:
        pixels = image[..., ::-1] if self._bgr else image
        if self._dtype != np.uint8:
            pixels = pixels.astype(np.float32)
            if self._normalize == "unit":
                pixels /= 255
            elif self._normalize == "imagenet":
                pixels = (pixels - _IMAGENET[0]) / _IMAGENET[1]
        if not self._channels_last:
            pixels = pixels.transpose(2, 0, 1)
        return {
            self._image: np.ascontiguousarray(pixels[None], self._dtype),
            **{name: value.astype(np.int64) for name, value in self._sizes.items()},
        }


def is_graph_file(path: Path) -> bool:
    """Whether a path has the suffix of a graph, in capitals or not."""
    return path.suffix.lower() in SUFFIXES


def find_graph(path: Path) -> Path:
    """The graph at a path, or the only one in a folder. Raises `DetectorError`."""
    if path.is_dir():
        found = sorted(f for f in path.iterdir() if is_graph_file(f))
        if len(found) == 1:
            return found[0]
        raise DetectorError(
            f"the folder {path} holds {len(found)} graphs (.onnx or .xml); give the one to use"
        )
    if not path.is_file():
        raise DetectorError(f"there is no detector {path}; give an .onnx or .xml file")
    if not is_graph_file(path):
        raise DetectorError(
            f"{path} is not a graph that OpenVINO reads: export it to ONNX (.onnx) or OpenVINO "
            "(.xml), for example with `yolo export format=onnx`"
        )
    return path


def suppressed(boxes: RawBoxes, iou: float) -> Any:
    """Indices of the boxes that are kept by non-maximum suppression within each class."""
    xywh = np.concatenate([boxes.xyxy[:, :2], boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]], 1)
    kept = cv2.dnn.NMSBoxesBatched(
        xywh.tolist(), boxes.scores.tolist(), boxes.classes.tolist(), 0.0, iou
    )
    return np.asarray(kept, np.intp).ravel()


def _masks(raw: RawBoxes, fit: Fit) -> list[FloatMap] | None:
    """Logits of each detection's mask over the image, at the prototypes' resolution."""
    if raw.coefficients is None or raw.prototypes is None:
        return None
    count, height, width = raw.prototypes.shape
    logits = (raw.coefficients @ raw.prototypes.reshape(count, -1)).reshape(-1, height, width)
    pairs = zip(logits, raw.xyxy, strict=True)
    return [fit.crop(_inside(each, box, fit.input_hw)) for each, box in pairs]


def _inside(logits: FloatMap, box: Any, input_hw: SizeHW) -> FloatMap:
    """Logits within a box, in pixels of the input; outside it is no object."""
    height, width = logits.shape
    scale = np.array([width, height]) / input_hw[::-1]
    x0, y0 = np.floor(np.maximum(box[:2] * scale, 0)).astype(int)
    x1, y1 = np.ceil(box[2:] * scale).astype(int)
    kept = np.full_like(logits, _OUTSIDE)
    kept[y0:y1, x0:x1] = logits[y0:y1, x0:x1]
    return kept


def _metadata(model: ov.Model) -> dict[str, str]:
    """Metadata that exporters write: ONNX's own, and OpenVINO's `model_info`."""
    found: dict[str, str] = {}
    for section in ("framework", "model_info"):
        if not model.has_rt_info([section]):
            continue
        for key, value in model.get_rt_info([section]).value.items():
            found[str(key)] = str(value.astype(str) if hasattr(value, "astype") else value)
    return found


def _is_end2end(metadata: Mapping[str, str]) -> bool:
    """Whether an export says that no suppression is left to do."""
    if metadata.get("end2end", "").lower() == "true":
        return True
    try:
        return bool(dict(ast.literal_eval(metadata.get("args", "{}"))).get("nms"))
    except (ValueError, SyntaxError, TypeError):
        return False


def _free_size(metadata: Mapping[str, str]) -> SizeHW:
    try:
        height, width = ast.literal_eval(metadata.get("imgsz", ""))
        return int(height), int(width)
    except (ValueError, SyntaxError, TypeError):
        return _FREE_SIDE, _FREE_SIDE


def _name_of(port: Any, number: int) -> str:
    names = sorted(port.get_names())
    return names[0] if names else f"output{number}"


def _shape_of(port: Any) -> tuple[int, ...]:
    return tuple(-1 if d.is_dynamic else d.get_length() for d in port.partial_shape)
