"""Runs with a detector, as a user meets them: classes in the store, exports, resume, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.detectors.detector import DetectedBox
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.runs.outputs import RunOutputs
from maskstream.pipeline.sources import open_source
from maskstream.pipeline.store import MaskStore
from maskstream.trackers.iou import mask_iou
from tests.support.labeled_shapes import CLASSES, labeled_clip
from tests.support.media import write_video

SHAPES = Path(__file__).parents[1] / "data" / "shapes-seg.onnx"
FRAMES = 26


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of a disc, a square and a triangle, with its true label maps."""
    frames, labels = labeled_clip(FRAMES, seed=2)
    return write_video(tmp_path_factory.mktemp("clip") / "shapes.mp4", frames), labels


@pytest.fixture(scope="module")
def detected(clip, tmp_path_factory):
    """The store of a run with the detector, by the command line."""
    from typer.testing import CliRunner

    from maskstream.pipeline.cli import app

    store = tmp_path_factory.mktemp("store") / "o.zarr"
    result = CliRunner().invoke(
        app, ["run", str(clip[0]), "-o", str(store), "--detector", str(SHAPES), "--quiet"]
    )
    assert result.exit_code == 0, result.output
    return store


def same_masks(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a.labels, b.labels) and a.objects == b.objects
        for a, b in zip(one, other, strict=True)
    )


def test_every_shape_is_one_object_of_its_class_on_all_frames(clip, detected):
    store, truth = MaskStore(detected), clip[1]
    objects = store.objects()
    assert sorted(o.label for o in objects) == sorted(CLASSES)
    for found in objects:
        number = 1 + CLASSES.index(found.label)
        later = range(found.first_index, FRAMES)
        iou = [mask_iou(store.mask(found.id, t), truth[t] == number) for t in later]
        assert found.first_index <= 8  # the second run of the detector
        assert np.mean(iou) > 0.9
    last = store.frame(FRAMES - 1)
    assert all(0.25 <= found.detector_score <= 1 for found in last.objects)


def test_classes_are_columns_of_the_store_with_names(detected):
    import zarr

    group = zarr.open_group(str(detected), mode="r")
    names = MaskStore(detected).class_names
    numbers = group["objects/class"][:]
    assert group.attrs["version"] == 3
    assert {names[n] for n in np.unique(numbers)} == set(CLASSES)
    assert group["objects/detector_score"].shape == numbers.shape == group["objects/id"].shape


def test_the_configuration_in_the_store_repeats_the_run(clip, detected, cli, tmp_path):
    stored = MaskStore(detected)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(dict(stored.attributes["config"])))
    code, _, err = cli("run", clip[0], "-o", tmp_path / "again.zarr", "--config", config, "--quiet")
    assert (code, err) == (0, "")
    assert same_masks(MaskStore(tmp_path / "again.zarr"), stored)


def test_a_run_that_broke_off_is_resumed_to_the_same_store(clip, detected, cli, tmp_path):
    output = tmp_path / "o.zarr"

    def break_off(result):
        if result.index == 12:
            raise OSError("broken off")

    whole = MaskStore(detected)
    outputs = RunOutputs(output, span=whole.span)
    pipeline = Pipeline(PipelineConfig.model_validate(whole.attributes["config"]))
    with pytest.raises(OSError, match="broken off"):
        pipeline.run(
            open_source(clip[0]), lambda info: outputs.open(pipeline, info), on_frame=break_off
        )
    assert 0 < len(MaskStore(output)) < FRAMES
    command = ["run", clip[0], "-o", output, "--detector", SHAPES, "--quiet", "--resume"]
    assert cli(*command)[0] == 0
    resumed = MaskStore(output)
    assert same_masks(resumed, whole)
    assert resumed.events == whole.events


def test_another_detector_is_refused_when_resuming(clip, cli, tmp_path):
    output = tmp_path / "o.zarr"
    boxes = tmp_path / "boxes.jsonl"
    boxes.write_text(line(0, [10, 10, 60, 60]) + "\n")
    command = ["run", clip[0], "-o", output, "--quiet", "--end", 4]
    assert cli(*command, "--detections", boxes)[0] == 0
    boxes.write_text(line(0, [10, 10, 60, 61]) + "\n")
    code, _, err = cli(*command[:-1], 8, "--detections", boxes, "--resume")
    assert code == 1
    assert "detector boxes.jsonl" in err


def line(frame, xyxy, label="disc", score=0.9):
    return json.dumps(
        {"frame": frame, "detections": [{"xyxy": xyxy, "label": label, "score": score}]}
    )


@pytest.mark.parametrize(
    ("form", "holds"),
    [
        ("coco", lambda file: {c["name"] for c in json.loads(file.read_text())["categories"]}),
        (
            "coco-ytvis",
            lambda file: {c["name"] for c in json.loads(file.read_text())["categories"]},
        ),
        (
            "yolo-seg",
            lambda file: set(yaml.safe_load((file / "data.yaml").read_text())["names"].values()),
        ),
    ],
)
def test_exports_have_the_classes_as_categories(detected, cli, tmp_path, form, holds):
    output = tmp_path / ("out" if form == "yolo-seg" else "out.json")
    code, _, err = cli("export", detected, "--format", form, "-o", output)
    assert code == 0, err
    assert holds(output) == set(CLASSES)


def test_mot_has_the_class_of_every_object_and_one_class_can_be_exported(detected, cli, tmp_path):
    for name, objects in (("all.txt", []), ("discs.txt", ["--objects", "disc"])):
        assert cli("export", detected, "--format", "mot", "-o", tmp_path / name, *objects)[0] == 0
    rows = [row.split(",") for row in (tmp_path / "all.txt").read_text().splitlines()]
    kinds = {row[1]: row[7] for row in rows}
    assert sorted(kinds.values()) == ["1", "2", "3"]
    (disc,) = (o for o in MaskStore(detected).objects() if o.label == "disc")
    assert {r.split(",")[1] for r in (tmp_path / "discs.txt").read_text().splitlines()} == {
        str(disc.id)
    }


def test_everything_takes_a_detector_instead_of_a_grid(clip, cli):
    code, out, err = cli(
        "everything", clip[0], "--end", 1, "--detector", SHAPES, "--classes", "disc", "--json"
    )
    assert (code, err) == (0, "")
    (found,) = json.loads(out)["objects"]
    assert found["class"] == "disc"
    assert found["detector_score"] > 0.3


def test_a_file_of_detections_names_objects_that_are_followed_without_it(clip, cli, tmp_path):
    truth = clip[1]
    y, x = np.nonzero(truth[3] == 1)
    box = [int(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1)]
    file = tmp_path / "boxes.jsonl"
    file.write_text(line(3, box, "wheel") + "\n" + json.dumps({"frame": 15, "detections": []}))
    output = tmp_path / "o.zarr"
    assert cli("run", clip[0], "-o", output, "--detections", file, "--quiet")[0] == 0
    store = MaskStore(output)
    (found,) = store.objects()
    assert (found.label, found.first_index, found.last_index) == ("wheel", 3, FRAMES - 1)
    assert mask_iou(store.mask(found.id, FRAMES - 1), truth[-1] == 1) > 0.9


def test_a_function_as_detector_gives_the_same_every_time(clip):
    def discs(rgb):
        return [DetectedBox((45, 100, 125, 180), "disc", 0.8)]

    config = PipelineConfig.model_validate({"seeding": {"enabled": False}})
    runs = [list(Pipeline(config, discs).stream(open_source(clip[0]))) for _ in range(2)]
    assert {o.label for result in runs[0] for o in result.objects} == {"disc"}
    assert all(
        np.array_equal(a.labels, b.labels) and a.objects == b.objects
        for a, b in zip(*runs, strict=True)
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--detector", "none.onnx"], "there is no detector none.onnx"),
        (
            ["--detector", SHAPES, "--classes", "dog"],
            "no class 'dog'; it has disc, square, triangle",
        ),
        (["--classes", "dog"], "give --detector or --detections"),
        (["--every", 4], "--every is how often a detector runs"),
        (["--text", "a dog. a red car"], "pip install 'maskstream[text]'"),
        (["--text", " "], "--text takes words"),
        (["--text", "", "--detector", SHAPES.parent], "--text takes words"),
        (["--detector", ""], "--detector takes a file or a folder"),
        (["--detector", SHAPES, "--every", 4, "--set", "detector.head=ssd"], "no ssd head"),
    ],
)
def test_what_is_wrong_is_said_before_the_run(clip, cli, tmp_path, options, sentence):
    code, _, err = cli("run", clip[0], "-o", tmp_path / "o.zarr", *options)
    assert code == 1
    assert sentence in err
    assert "Traceback" not in err
    assert not (tmp_path / "o.zarr").exists()


def test_a_file_for_other_frames_is_said(clip, cli, tmp_path):
    file = tmp_path / "boxes.jsonl"
    file.write_text(line(300, [10, 10, 60, 60]))
    code, _, err = cli(
        "run", clip[0], "-o", tmp_path / "o.zarr", "--detections", file, "--end", 3, "--quiet"
    )
    assert code == 1
    assert "none of the frames of boxes.jsonl is among the 3 frames" in err


def test_everything_refuses_the_options_of_a_grid_beside_a_detector(clip, cli):
    for options in (("--grid", "plain"), ("--points-per-side", 8)):
        code, _, err = cli("everything", clip[0], "--detector", SHAPES, *options)
        assert (code, "omit the options of the grid" in err) == (1, True)


def test_everything_refuses_a_file_for_other_frames_too(clip, cli, tmp_path):
    file = tmp_path / "boxes.jsonl"
    file.write_text(line(300, [10, 10, 60, 60]))
    code, _, err = cli("everything", clip[0], "--end", 2, "--detections", file)
    assert code == 1
    assert "none of the frames of boxes.jsonl is among the 2 frames" in err


@pytest.mark.parametrize("command", ["run", "everything"])
def test_frames_that_a_file_has_and_the_clip_lacks_are_noted(clip, cli, tmp_path, command):
    file = tmp_path / "boxes.jsonl"
    file.write_text(line(1, [10, 10, 60, 60]) + "\n" + line(300, [10, 10, 60, 60]))
    output = ["-o", tmp_path / "o.zarr"] if command == "run" else []
    code, out, err = cli(command, clip[0], *output, "--end", 3, "--detections", file)
    assert code == 0
    said = " ".join((out + err).split())
    assert "boxes.jsonl names frames after the last one of this run, 2, which were not used" in said


def test_boxes_outside_the_video_are_said_before_the_run(clip, cli, tmp_path):
    file = tmp_path / "boxes.jsonl"
    file.write_text(line(3, [900, 10, 950, 60]))
    code, _, err = cli("run", clip[0], "-o", tmp_path / "o.zarr", "--detections", file)
    assert code == 1
    assert "frame 3, detection 0: the box [900.0, 10.0, 950.0, 60.0] has no part inside" in err
    assert not (tmp_path / "o.zarr").exists()
