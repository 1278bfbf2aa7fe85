"""J, F, their statistics, HOTA and switches against cases worked out by hand."""

import numpy as np
import pytest

from maskstream.pipeline.lab.evaluation.video.identities import overlap, score_identities
from maskstream.pipeline.lab.evaluation.video.measures import (
    boundary,
    boundary_accuracy,
    region_similarity,
    statistics,
)


def box(x0, y0, x1, y1, size_hw=(100, 200)):
    mask = np.zeros(size_hw, np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


NOTHING = box(0, 0, 0, 0)
SQUARE = box(50, 40, 70, 60)


@pytest.mark.parametrize(
    ("answer", "truth", "j"),
    [
        (SQUARE, SQUARE, 1),
        (NOTHING, NOTHING, 1),
        (NOTHING, SQUARE, 0),
        (SQUARE, NOTHING, 0),
        (box(60, 40, 80, 60), SQUARE, 200 / 600),
        (box(50, 40, 70, 50), SQUARE, 0.5),
    ],
)
def test_region_similarity(answer, truth, j):
    assert region_similarity(answer, truth) == pytest.approx(j)


def test_boundary_lies_on_the_left_and_upper_side_and_not_along_the_edge():
    mask = np.zeros((4, 5), np.bool_)
    mask[2:, 2:4] = True
    drawn = ["".join(".#"[v] for v in row) for row in boundary(mask).astype(int)]
    assert drawn == [".....", ".###.", ".#.#.", ".#.#."]
    assert not boundary(np.ones((4, 5), np.bool_)).any()


@pytest.mark.parametrize(
    ("answer", "truth", "f"),
    [
        (SQUARE, SQUARE, 1),
        (NOTHING, NOTHING, 1),
        (NOTHING, SQUARE, 0),
        (SQUARE, NOTHING, 0),
        (box(52, 40, 72, 60), SQUARE, 1),  # the tolerance is 0.008 x 223.6, rounded up: 2 pixels
        (box(150, 40, 170, 60), SQUARE, 0),
        # The right sides, 21 of 81 boundary pixels, are 4 apart; near the corners 2 of them match.
        (box(50, 40, 66, 60), SQUARE, None),
    ],
)
def test_boundary_accuracy(answer, truth, f):
    if f is None:
        f = f_by_distance(answer, truth, 2)
        assert 0.6 < f < 0.95
    assert boundary_accuracy(answer, truth) == pytest.approx(f)


def f_by_distance(answer, truth, reach):
    """F from all pairs of boundary pixels."""
    a, b = (np.argwhere(boundary(m)) for m in (answer, truth))
    near = np.linalg.norm(a[:, None] - b[None], axis=2) <= reach
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / (precision + recall)


def test_boundary_accuracy_at_the_edge_equals_that_of_the_whole_image():
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = rng.integers(-10, 190), rng.integers(-10, 90)
        answer = box(max(0, x), max(0, y), x + 20, y + 20)
        truth = box(max(0, x + 3), max(0, y), x + 20, y + 20)
        expected = f_by_distance(answer, truth, 2)
        assert boundary_accuracy(answer, truth) == pytest.approx(expected)


def test_statistics_are_those_of_davis():
    values = [1.0, 0.9, 0.8, 0.7, 0.5, 0.4, 0.3, 0.2]
    found = statistics(values)
    assert found.mean == pytest.approx(0.6)
    assert found.recall == pytest.approx(4 / 8)
    # quarters end on frames 1, 3 (2.75), 5 (4.5, rounded up), 6 (6.25), 8 and share these
    assert found.decay == pytest.approx((1.0 + 0.9 + 0.8) / 3 - (0.4 + 0.3 + 0.2) / 3)
    assert statistics([0.5]).decay == 0
    with pytest.raises(ValueError, match="no values"):
        statistics([])


def labels(*boxes):
    """Label map with boxes (id, x0): 10 wide, 10 high, 20 apart."""
    out = np.zeros((10, 100), np.uint16)
    for number, x0 in boxes:
        out[:, x0 : x0 + 10] = number
    return out


def scores(*frames):
    """Of (answer, truth) label maps."""
    return score_identities([overlap(answer, truth) for answer, truth in frames])


def test_overlap_is_the_iou_of_all_pairs():
    found = overlap(labels((4, 5), (9, 60)), labels((1, 0), (2, 60)))
    assert found.truth.tolist() == [1, 2]
    assert found.answers.tolist() == [4, 9]
    assert found.iou == pytest.approx(np.array([[5 / 15, 0], [0, 1]]))


def test_perfect_tracks_have_hota_1():
    truth = labels((1, 0), (2, 40))
    found = scores(*[(labels((7, 0), (5, 40)), truth)] * 3)
    assert (found.hota, found.detection, found.association, found.switches) == (1, 1, 1, 0)


def test_how_long_an_object_waits_to_be_found_is_counted_while_it_is_there():
    first, both = labels((1, 0)), labels((1, 0), (2, 40))
    found = scores((labels(), first), (labels((7, 0)), both), (labels((7, 0)), both))
    assert found.delays == (1, None)
    assert (found.found, found.found_within(0)) == (0.5, 0)


def test_nothing_found_is_0_and_an_extra_object_costs_detection():
    truth = labels((1, 0))
    assert scores((labels(), truth)).hota == 0
    found = scores(*[(labels((3, 0), (4, 50)), truth)] * 4)
    assert found.detection == pytest.approx(0.5)
    assert found.association == pytest.approx(1)
    assert found.hota == pytest.approx(np.sqrt(0.5))


def test_an_object_that_changes_its_answer_is_a_switch():
    truth = labels((1, 0))
    found = scores(*[(labels((7, 0)), truth)] * 2, *[(labels((8, 0)), truth)] * 2)
    assert found.switches == 1
    assert found.detection == pytest.approx(1)
    # each match is shared by 2 of the 4 frames: TPA 2, FNA 2, FPA 0
    assert found.association == pytest.approx(0.5)


def test_two_objects_that_exchange_answers_are_two_switches():
    truth = labels((1, 0), (2, 40))
    before, after = labels((7, 0), (8, 40)), labels((8, 0), (7, 40))
    assert scores((before, truth), (before, truth), (after, truth)).switches == 2


def test_a_gap_is_no_switch_and_a_match_is_kept_while_it_can_be():
    truth = labels((1, 0))
    gone = scores((labels((7, 0)), truth), (labels(), truth), (labels((7, 0)), truth))
    assert gone.switches == 0
    wide = np.zeros((10, 100), np.uint16)
    wide[:, :10] = 1
    rival = np.zeros((10, 100), np.uint16)
    rival[:6, :10], rival[6:, :10] = 7, 8  # 7 still has an IoU of 0.6
    assert scores((labels((7, 0)), wide), (rival, wide)).switches == 0


def test_hota_falls_with_the_overlap():
    truth = labels((1, 10))
    found = scores(*[(labels((3, 12)), truth)] * 3)  # IoU 8 / 12: above 13 of 19 thresholds
    assert found.hota == pytest.approx(13 / 19)
