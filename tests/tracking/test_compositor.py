"""Label maps from tracks: overlap, boxes, and what is withheld."""

import numpy as np
import pytest

from maskstream.pipeline.tracking.compositor import compose
from maskstream.trackers.motion import KalmanBox
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import Track, box_of

GRID = (36, 64)
FRAME = (180, 320)


def track(track_id: int, x0: int, x1: int, strength: float, state=TrackState.TRACKED) -> Track:
    """A bar over rows 10..20 and columns x0..x1 of the grid."""
    logits = np.full(GRID, -strength, np.float32)
    logits[10:20, x0:x1] = strength
    return Track(track_id, logits, KalmanBox.start(box_of(logits > 0)), 0.9, state, False, 0.0)


def test_masks_are_scaled_to_the_frame_with_their_boxes_and_areas():
    seen = compose([track(7, 20, 40, 5.0)], FRAME)
    labels, (found,) = seen.labels, seen.objects
    assert seen.covered == ()
    assert found.box_xyxy == pytest.approx((100, 50, 200, 100), abs=2)
    assert found.area == (labels == 7).sum() == pytest.approx(100 * 50, rel=0.05)


def test_where_masks_overlap_the_surer_wins_and_the_rest_keeps_both():
    seen = compose([track(1, 10, 40, 3.0), track(2, 30, 50, 6.0)], FRAME)
    labels, objects = seen.labels, seen.objects
    assert labels[75, 170] == 2
    assert labels[75, 100] == 1
    assert [o.id for o in objects] == [1, 2]
    assert objects[0].box_xyxy[2] == pytest.approx(150, abs=3)


def test_what_lies_under_others_is_kept_beside_the_label_map():
    tracks = [track(1, 10, 40, 3.0), track(2, 30, 50, 6.0)]
    seen = compose(tracks, FRAME)
    whole = {i: seen.labels == i for i in (1, 2)}
    for part in seen.covered:
        height, width = part.mask.shape
        whole[part.object_id][part.y0 : part.y0 + height, part.x0 : part.x0 + width] |= part.mask
    assert whole[1].sum() > (seen.labels == 1).sum()
    for alone in tracks:
        assert np.array_equal(whole[alone.id], compose([alone], FRAME).labels == alone.id)


def test_mask_at_the_border_reaches_it():
    seen = compose([track(1, 0, 64, 5.0)], FRAME)
    labels, (found,) = seen.labels, seen.objects
    assert (labels[75] == 1).all()
    assert found.box_xyxy[0] == 0
    assert found.box_xyxy[2] == 320


@pytest.mark.parametrize("state", [TrackState.LOST, TrackState.OCCLUDED])
def test_withheld_objects_have_the_box_they_are_expected_at_and_no_area(state):
    seen = compose([track(3, 20, 40, 5.0, state)], FRAME)
    labels, (found,) = seen.labels, seen.objects
    assert not labels.any()
    assert found.area == 0
    assert found.box_xyxy == pytest.approx((100, 50, 200, 100), abs=1)


def test_objects_without_an_id_and_hidden_ones_take_no_pixels():
    covered, front = track(1, 20, 40, 2.0), track(2, 20, 40, 6.0)
    tentative = track(0, 50, 60, 6.0, TrackState.TENTATIVE)
    seen = compose([covered, front, tentative], FRAME)
    labels, objects = seen.labels, seen.objects
    assert set(np.unique(labels)) == {0, 2}
    assert [(o.id, o.area > 0) for o in objects] == [(1, False), (2, True)]
