"""`eval detector`: HOTA of a simulated detector with the pipeline, and with boxes alone."""

import json
from fractions import Fraction

import numpy as np
import pytest

from maskstream.pipeline.lab.evaluation.video.box_tracker import BoxTracker
from maskstream.pipeline.lab.evaluation.video.clips import ArrayTruth
from maskstream.pipeline.lab.evaluation.video.simulated_detector import (
    Faults,
    SimulatedDetector,
    true_boxes,
)

DT_S = float(Fraction(1, 30))


@pytest.fixture(scope="module")
def truth():
    """Two rectangles that move apart, 200 frames."""
    labels = np.zeros((200, 120, 200), np.uint8)
    for t, frame in enumerate(labels):
        frame[40:80, 80 - t // 4 : 110 - t // 4] = 1
        frame[20:60, 120 + t // 5 : 150 + t // 5] = 2
    return ArrayTruth(labels)


def test_the_faults_are_those_asked_for_and_repeat(truth):
    faults = Faults(misses=0.3, false=0.5, jitter=0.05, confusions=0.1)
    detector, again = (SimulatedDetector(truth, faults, (1,)) for _ in range(2))
    found = [detector.boxes(t, (120, 200)) for t in range(200)]
    assert [[b.xyxy for b in boxes] for boxes in found] == [
        [b.xyxy for b in again.boxes(t, (120, 200))] for t in range(200)
    ]
    count = sum(map(len, found))
    assert count == pytest.approx(200 * (2 * 0.7 + 0.5), rel=0.1)
    exact = SimulatedDetector(truth, Faults(0, 0, 0, 0), (1,))
    boxes = exact.boxes(7, (120, 200))
    assert [b.xyxy for b in boxes] == [tuple(b) for b in true_boxes(truth, 7).values()]
    assert [b.label for b in boxes] == ["odd", "even"]


def test_boxes_alone_keep_their_numbers_through_misses(truth):
    detector = SimulatedDetector(truth, Faults(0.3, 0, 0.02, 0), (1,))
    tracker = BoxTracker(coast=10)
    shown = [tracker.step(detector.boxes(t, (120, 200)), DT_S) for t in range(60)]
    assert all(set(boxes) == {1, 2} for boxes in shown[10:])


def test_hota_is_better_than_that_of_the_detector_with_boxes_alone(cli):
    code, out, err = cli("eval", "detector", "--every", 8, "--sequences", "scale,blur", "--json")
    assert code == 0, err
    means = json.loads(out)["means"]
    ours = means["maskstream, every 8"]
    for name, alone in means.items():
        if name != "maskstream, every 8":
            assert ours["hota"] > alone["hota"] + 0.1
    assert ours["hota"] > 0.8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(["--every", "0"], "--every takes numbers"), (["--sequences", "x"], "there is no clip x")],
)
def test_wrong_options_are_sentences(cli, options, sentence):
    code, _, err = cli("eval", "detector", *options)
    assert code == 1
    assert sentence in err
