"""Graphs as detectors: a real small network (`shapes-seg.onnx`) with the heads of every family.

The other heads are made from it by adding operations to its graph, so all run the same weights.
"""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.pipeline.detectors.graph import GraphDetector
from maskstream.pipeline.detectors.labels import given_labels
from maskstream.pipeline.errors import DetectorError
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.pipeline.sources.arrays import ArraySource
from tests.support.labeled_shapes import CLASSES, labeled_clip

SHAPES = Path(__file__).parents[1] / "data" / "shapes-seg.onnx"
SIDE, MASKS, KINDS = 160, 8, len(CLASSES)
OPSET = pytest.importorskip("openvino.opset13")


@pytest.fixture(scope="module")
def scene():
    """A frame of 480x270 with a disc, a square and a triangle, and its label map."""
    frames, labels = labeled_clip(1, seed=3)
    with ArraySource(list(frames), Fraction(25)).open() as reader:
        return next(iter(reader)), labels[0]


class Graph:
    """The tiny network, and its outputs as nodes to build other heads from."""

    def __init__(self):
        self.core = ov.Core()
        self.model = self.core.read_model(SHAPES)
        self.image = self.model.input(0).get_node()
        rows, self.proto = (port.get_node().input_value(0) for port in self.model.outputs)
        self.rows = OPSET.transpose(rows, [0, 2, 1])  # [1, N, 4 + classes + masks]

    def columns(self, start, stop):
        return OPSET.slice(self.rows, [start], [stop], [1], [2])

    def boxes(self, *, corners, scale=1.0):
        center, half = self.columns(0, 2), OPSET.divide(self.columns(2, 4), np.float32(2))
        if corners:
            parts = [OPSET.subtract(center, half), OPSET.add(center, half)]
        else:
            parts = [center, self.columns(2, 4)]
        return OPSET.multiply(OPSET.concat(parts, 2), np.float32(scale))

    @property
    def scores(self):
        return self.columns(4, 4 + KINDS)

    def best(self, count=300):
        """Scores, classes and rows of the best anchors, as end-to-end heads choose them."""
        best = OPSET.reduce_max(self.scores, [2], keep_dims=False)
        chosen = OPSET.topk(best, np.int32(count), 1, "max", "value", index_element_type="i64")
        kind = OPSET.topk(self.scores, np.int32(1), 2, "max", "value", index_element_type="i64")
        kinds = OPSET.squeeze(kind.output(1), [2])
        gathered = OPSET.gather(kinds, chosen.output(1), np.int64(1), batch_dims=0)
        return chosen.output(0), OPSET.squeeze(gathered, [0]), chosen.output(1)

    def rows_of(self, node, chosen):
        return OPSET.squeeze(OPSET.gather(node, chosen, np.int64(1)), [0])

    def save(self, folder, *outputs, names=(), info=None, more_inputs=()):
        results = [OPSET.result(node) for node in outputs]
        model = ov.Model(results, [self.image, *more_inputs], "shapes")
        for port, name in zip(model.outputs, names, strict=False):
            port.get_tensor().set_names({name})
        for key, value in (info or {}).items():
            model.set_rt_info(value, ["model_info", key])
        ov.save_model(model, folder / "shapes.xml", compress_to_fp16=False)
        return folder / "shapes.xml"


def v8(graph, folder):
    rows = OPSET.concat([graph.boxes(corners=False), graph.scores], 2)
    return graph.save(folder, OPSET.transpose(rows, [0, 2, 1]))


def v5(graph, folder):
    one = OPSET.add(OPSET.multiply(graph.columns(4, 5), np.float32(0)), np.float32(1))
    return graph.save(folder, OPSET.concat([graph.boxes(corners=False), one, graph.scores], 2))


def end2end(graph, folder, info=(("end2end", "True"),)):
    score, kind, chosen = graph.best()
    parts = [
        graph.rows_of(graph.boxes(corners=True), chosen),
        OPSET.unsqueeze(score, [2]),
        OPSET.unsqueeze(OPSET.convert(kind, "f32"), [2]),
    ]
    return graph.save(folder, OPSET.concat(parts, 2), info=dict(info))


def detr(graph, folder):
    logits = OPSET.log(OPSET.divide(graph.scores, OPSET.subtract(np.float32(1), graph.scores)))
    boxes = graph.boxes(corners=False, scale=1 / SIDE)
    return graph.save(folder, boxes, logits, names=("pred_boxes", "logits"))


def detr_with_no_object(graph, folder):
    rest = OPSET.subtract(np.float32(1), OPSET.reduce_sum(graph.scores, [2], keep_dims=True))
    shares = OPSET.concat([graph.scores, OPSET.maximum(rest, np.float32(1e-3))], 2)
    boxes = graph.boxes(corners=False, scale=1 / SIDE)
    return graph.save(folder, boxes, OPSET.log(shares), names=("pred_boxes", "logits"))


def tensorflow(graph, folder):
    score, kind, chosen = graph.best()
    corners = graph.rows_of(graph.boxes(corners=True, scale=1 / SIDE), chosen)
    swapped = OPSET.gather(corners, np.array([1, 0, 3, 2]), np.int64(2))
    one = OPSET.add(OPSET.convert(kind, "f32"), np.float32(1))
    raw = OPSET.concat([graph.scores, graph.scores], 2)
    names = ("detection_boxes", "detection_classes", "detection_scores")
    names += ("detection_multiclass_scores", "raw_detection_boxes")
    return graph.save(folder, swapped, one, score, raw, graph.boxes(corners=True), names=names)


def rt_detr_joined(graph, folder, kinds=KINDS):
    scores = graph.columns(4, 4 + kinds)
    rows = OPSET.concat([graph.boxes(corners=False, scale=1 / SIDE), scores], 2)
    _, _, chosen = graph.best()
    return graph.save(
        folder, graph.rows_of(rows, chosen), info={"labels": " ".join(CLASSES[:kinds])}
    )


def rt_detr(graph, folder):
    score, kind, chosen = graph.best()
    size = OPSET.parameter([1, 2], np.int64, name="orig_target_sizes")
    size.output(0).get_tensor().set_names({"orig_target_sizes"})
    shares = graph.rows_of(graph.boxes(corners=True, scale=1 / SIDE), chosen)
    sizes = OPSET.concat([OPSET.convert(size, "f32")] * 2, 1)
    boxes = OPSET.multiply(shares, sizes)
    return graph.save(
        folder, kind, boxes, score, names=("labels", "boxes", "scores"), more_inputs=[size]
    )


def ssd(graph, folder):
    score, kind, chosen = graph.best()
    image = OPSET.multiply(OPSET.unsqueeze(score, [2]), np.float32(0))
    parts = [
        image,
        OPSET.unsqueeze(OPSET.convert(kind, "f32"), [2]),
        OPSET.unsqueeze(score, [2]),
        graph.rows_of(graph.boxes(corners=True, scale=1 / SIDE), chosen),
    ]
    return graph.save(folder, OPSET.unsqueeze(OPSET.concat(parts, 2), [0]))


HEADS = {
    "yolo": (v8, v5),
    "end2end": (end2end,),
    "detr": (detr, detr_with_no_object, rt_detr_joined),
    "boxes": (rt_detr, tensorflow),
    "ssd": (ssd,),
}


def found_on(detector, frame, labels, names=CLASSES):
    """For every shape, the detection with the best score: label, and IoU with the true box."""
    found = {}
    for number, name in enumerate(names, 1):
        y, x = np.nonzero(labels == number)
        true = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
        there = [each for each in detector.detect(frame) if iou(each.xyxy, true) > 0.4]
        best = max(there, key=lambda each: each.score)
        found[name] = best.label, iou(best.xyxy, true)
    return found


def iou(one, other):
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    common = np.prod(np.clip(high - low, 0, None))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return common / (sum(areas) - common)


def test_yolo_seg_finds_the_shapes_with_their_classes_and_masks(scene):
    frame, labels = scene
    detector = GraphDetector(SHAPES)
    assert (detector.head, detector.labels) == ("yolo", CLASSES)  # names: of its own metadata
    assert {name: label for name, (label, _) in found_on(detector, frame, labels).items()} == {
        name: name for name in CLASSES
    }
    for each in detector.detect(frame):
        if each.score > 0.5:
            mask = cv2.resize(each.mask, (480, 270)) > 0
            true = labels == 1 + CLASSES.index(each.label)
            assert (mask & true).sum() / (mask | true).sum() > 0.7
            x0, y0, x1, y1 = map(round, each.xyxy)
            assert mask[max(0, y0) : y1, max(0, x0) : x1].sum() > 0.95 * mask.sum()


@pytest.mark.parametrize(
    ("family", "build"), [(f, b) for f, builds in HEADS.items() for b in builds]
)
def test_every_head_gives_what_the_network_found(scene, tmp_path, family, build):
    frame, labels = scene
    stretched = family in ("detr", "boxes", "ssd")
    options = {"letterbox": True, "normalize": "unit"} if stretched else {}
    reference = GraphDetector(SHAPES)
    detector = GraphDetector(build(Graph(), tmp_path), labels=CLASSES, **options)
    assert detector.head == family
    want, got = found_on(reference, frame, labels), found_on(detector, frame, labels)
    for name in CLASSES:
        assert got[name][0] == want[name][0] == name
        assert got[name][1] == pytest.approx(want[name][1], abs=0.02)


def test_with_two_classes_values_tell_end_to_end_yolo_from_rt_detr(scene, tmp_path):
    frame, labels = scene
    two = CLASSES[:2]
    want = found_on(GraphDetector(SHAPES), frame, labels)
    builds = {
        "end2end": lambda folder: end2end(Graph(), folder, info=()),
        "detr": lambda folder: rt_detr_joined(Graph(), folder, kinds=2),
    }
    for family, build in builds.items():
        (tmp_path / family).mkdir()
        file = build(tmp_path / family)
        detector = GraphDetector(file, labels=two, letterbox=True)
        assert detector.head == family
        got = found_on(detector, frame, labels, two)
        for name in two:
            assert got[name][0] == name
            assert got[name][1] == pytest.approx(want[name][1], abs=0.02)
        for forced in builds:
            assert GraphDetector(file, labels=two, head=forced).head == forced


def test_scores_that_are_logits_are_refused(scene, tmp_path):
    graph = Graph()
    logits = OPSET.log(OPSET.divide(graph.scores, OPSET.subtract(np.float32(1), graph.scores)))
    rows = OPSET.concat([graph.boxes(corners=False), logits], 2)
    detector = GraphDetector(graph.save(tmp_path, OPSET.transpose(rows, [0, 2, 1])))
    with pytest.raises(
        DetectorError, match="scores are 0 to 1; if they are logits, export it with sigmoid"
    ):
        detector.detect(scene[0])


def test_suppression_is_done_where_the_graph_has_none(scene):
    frame, _ = scene
    loose, strict = (GraphDetector(SHAPES, nms_iou=iou) for iou in (1.0, 0.3))
    assert len(loose.detect(frame)) > 3 * len(strict.detect(frame))


def test_an_ir_with_its_labels_beside_it_or_in_it_or_given(tmp_path):
    assert GraphDetector(v8(Graph(), tmp_path)).labels == ()
    (tmp_path / "metadata.yaml").write_text("names:\n  0: a\n  1: traffic light\n  2: c\n")
    assert GraphDetector(tmp_path).labels == ("a", "traffic light", "c")
    (tmp_path / "names.txt").write_text("x\ny\nz\n")
    (tmp_path / "coco.json").write_text(
        json.dumps({"categories": [{"id": i, "name": f"c{i}"} for i in range(3)]})
    )
    given = [
        GraphDetector(tmp_path, labels=[str(tmp_path / n)]) for n in ("names.txt", "coco.json")
    ]
    assert [d.labels for d in given] == [("x", "y", "z"), ("c0", "c1", "c2")]


@pytest.mark.parametrize("suffix", [".ONNX", ".XML"])
def test_suffixes_in_capitals_are_read(suffix, tmp_path):
    if suffix == ".XML":
        v8(Graph(), tmp_path).rename(tmp_path / f"shapes{suffix}")
    else:
        shutil.copy(SHAPES, tmp_path / f"shapes{suffix}")
    assert GraphDetector(tmp_path / f"shapes{suffix}").head == "yolo"
    assert GraphDetector(tmp_path).head == "yolo"


def test_a_file_of_labels_needs_no_suffix_and_a_name_may_have_a_dot(tmp_path):
    (tmp_path / "labels").write_text("x\ny\nz\n")
    assert GraphDetector(SHAPES, labels=[str(tmp_path / "labels")]).labels == ("x", "y", "z")
    assert given_labels(["v1.5 car"]) == {0: "v1.5 car"}


@pytest.mark.parametrize("names", ["{0: disc, 1", "5", "{'a': 'disc'}"])
def test_names_that_cannot_be_read_are_said(tmp_path, caplog, names):
    graph = Graph()
    rows = OPSET.concat([graph.boxes(corners=False), graph.scores], 2)
    file = graph.save(tmp_path, OPSET.transpose(rows, [0, 2, 1]), info={"names": names})
    assert GraphDetector(file).labels == ()
    assert "'names' in the metadata of shapes.xml cannot be read" in caplog.text


def classifier(folder):
    graph = Graph()
    return graph.save(folder, OPSET.reduce_mean(graph.scores, [1], keep_dims=False))


def gray(folder):
    image = OPSET.parameter([1, 1, 32, 32], np.float32)
    model = ov.Model([OPSET.result(OPSET.relu(image))], [image], "gray")
    ov.save_model(model, folder / "gray.xml")
    return folder / "gray.xml"


def pose(folder):
    graph = Graph()
    return graph.save(folder, OPSET.transpose(graph.rows, [0, 2, 1]), info={"task": "pose"})


@pytest.mark.parametrize(
    ("make", "labels", "sentence"),
    [
        (lambda folder: folder / "none.onnx", (), "there is no detector"),
        (lambda folder: folder, (), "holds 0 graphs"),
        (classifier, (), "its outputs are of no detector .* expected are YOLO"),
        (gray, (), "its input is .* expected is one RGB image"),
        (pose, (), "for the task 'pose'"),
        (lambda folder: SHAPES, ("a", "b"), "has 3 classes, but 2 labels are given"),
        (lambda folder: SHAPES, ("missing.txt",), "cannot read the labels"),
        (lambda folder: SHAPES, ("missing",), "there is no file of labels missing, and one name"),
        (lambda folder: SHAPES, ("v1.5",), "there is no file of labels v1.5, and one name"),
        (
            lambda f: v8(Graph(), f),
            ("missing",),
            "but 1 label is given; missing is taken for a name",
        ),
    ],
)
def test_what_is_no_detector_is_said(tmp_path, make, labels, sentence):
    with pytest.raises(DetectorError, match=sentence):
        GraphDetector(make(tmp_path), labels=labels)


def test_files_that_are_no_graphs_are_said(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"PK")
    with pytest.raises(DetectorError, match="export it to ONNX"):
        GraphDetector(tmp_path / "weights.pt")
    (tmp_path / "broken.onnx").write_bytes(SHAPES.read_bytes()[:2000])
    with pytest.raises(DetectorError, match="OpenVINO cannot read the detector"):
        GraphDetector(tmp_path / "broken.onnx")


@pytest.mark.parametrize(
    ("name", "content"),
    [("junk.onnx", bytes(range(256)) * 8), ("empty.onnx", b""), ("empty.xml", b"<net></net>")],
)
def test_a_file_without_a_network_is_one_sentence(name, content, tmp_path, capfd):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DetectorError, match="OpenVINO cannot read the detector") as error:
        GraphDetector(tmp_path / name)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_the_own_proposals_as_an_onnx_detector_find_what_they_find_in_the_product(scene, tmp_path):
    pytest.importorskip("onnx")
    from maskstream.pipeline.models.find import find_model
    from maskstream.pipeline.models.head import open_head_of
    from maskstream.pipeline.models.open import open_model
    from tests.support.own_detector import write_own_detector

    frame, _ = scene
    detector = GraphDetector(
        write_own_detector(tmp_path / "own.onnx"), normalize="none", score_min=0.3
    )
    assert (detector.head, detector.labels) == ("yolo", ("object",))
    segmenter = open_model("lite", frame.size_hw)
    head = open_head_of(find_model("lite"))
    boxes = head.propose(segmenter.encode(frame), segmenter.geometry)
    sure = boxes.boxes_xyxy[boxes.scores > 0.5]
    found = [each.xyxy for each in detector.detect(frame)]
    assert len(sure) >= len(CLASSES)
    for box in sure:
        assert max(iou(np.array(each), box) for each in found) > 0.8
