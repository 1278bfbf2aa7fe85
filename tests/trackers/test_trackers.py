"""Motion, assignment, flow and the life of a track, on shapes whose truth is known."""

import numpy as np
import pytest

from maskstream.trackers.assignment import (
    Assignment,
    assign,
    assign_two_stage,
)
from maskstream.trackers.flow import FlowEstimator, Propagated
from maskstream.trackers.iou import box_iou, mask_iou, pairwise_mask_iou
from maskstream.trackers.motion import KalmanBox
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import Detection, box_of
from maskstream.trackers.tracker import Tracker, TrackerSettings

SHAPE = (72, 128)


def disc(x: float, y: float, radius: float = 12.0) -> np.ndarray:
    """Logits of a disc: positive inside, by distance to its border."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(columns + 0.5 - x, rows + 0.5 - y)
    return (radius - distance).astype(np.float32)


def texture(shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """A smooth random luma picture moved by (x, y) pixels."""
    import cv2

    noise = np.random.default_rng(0).integers(0, 255, (160, 220), dtype=np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    x, y = shift
    return np.ascontiguousarray(smooth[40 - y : 112 - y, 40 - x : 168 - x])


@pytest.mark.parametrize(
    ("cost", "cost_max", "pairs"),
    [
        ([[0.1, 0.9], [0.9, 0.2]], 0.5, ((0, 0), (1, 1))),
        # a dear pair may not push a cheap one aside: gated before solving
        ([[0.1, 0.45], [0.0, 0.9]], 0.5, ((0, 1), (1, 0))),
        ([[0.6, 0.9], [0.9, 0.7]], 0.5, ()),
        ([[0.1, 0.2, 0.3]], 0.5, ((0, 0),)),
        ([[0.3], [0.1], [0.2]], 0.5, ((1, 0),)),
    ],
)
def test_assign_takes_the_cheapest_feasible_pairs(cost, cost_max, pairs):
    result = assign(np.array(cost), cost_max)
    assert result.pairs == pairs
    rows, columns = np.array(cost).shape
    assert len(result.unmatched_tracks) == rows - len(pairs)
    assert len(result.unmatched_detections) == columns - len(pairs)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_assign_of_nothing_leaves_all_alone(shape):
    result = assign(np.zeros(shape), 1.0)
    assert result.pairs == ()
    assert (len(result.unmatched_tracks), len(result.unmatched_detections)) == shape


def test_iou_of_masks_and_boxes_agree_on_rectangles():
    masks = np.zeros((2, 10, 20), bool)
    masks[0, 2:8, 2:10] = True
    masks[1, 2:8, 6:14] = True
    boxes = np.array([box_of(m) for m in masks])
    assert pairwise_mask_iou(masks[:1], masks[1:])[0, 0] == pytest.approx(1 / 3)
    assert box_iou(boxes[:1], boxes[1:])[0, 0] == pytest.approx(1 / 3)
    assert pairwise_mask_iou(masks[:1], np.zeros((1, 10, 20), bool))[0, 0] == 0
    assert mask_iou(masks[0], masks[1]) == pytest.approx(1 / 3)
    assert (
        mask_iou(masks[0], ~masks[0])
        == mask_iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool))
        == 0
    )


def test_unsure_detections_get_the_tracks_that_sure_ones_leave():
    cost = np.array([[0.2, 0.1], [0.9, 0.3]])
    at_once = assign(cost, 0.5)
    round_robin = assign_two_stage(cost, 0.5, np.array([False, True]))
    assert sorted(at_once.pairs) == [(0, 0), (1, 1)]
    assert round_robin == Assignment(((0, 1),), (1,), (0,))


@pytest.mark.parametrize("steps_s", [[0.04] * 20, [0.04, 0.12] * 10])
def test_kalman_predicts_steady_motion_whatever_the_time_step(steps_s):
    """20 px/s to the right: the prediction holds with a variable frame rate."""
    box = np.array([10.0, 10, 30, 40])
    motion = KalmanBox.start(box)
    elapsed = 0.0
    for step in steps_s:
        elapsed += step
        motion.predict(step)
        motion.update(box + [20 * elapsed, 0, 20 * elapsed, 0])
    motion.predict(0.5)
    expected = box + [20 * (elapsed + 0.5), 0, 20 * (elapsed + 0.5), 0]
    assert np.abs(motion.box_xyxy - expected).max() < 1.5


def test_flow_carries_a_mask_with_the_image():
    estimator = FlowEstimator()
    assert estimator.step(texture()) is None
    flow = estimator.step(texture((4, 2)))
    propagated = flow.warp(disc(60, 30)) > 0
    assert pairwise_mask_iou(propagated[None], (disc(64, 32) > 0)[None])[0, 0] > 0.9
    assert pairwise_mask_iou(propagated[None], (disc(60, 30) > 0)[None])[0, 0] < 0.75


def pasted(background: np.ndarray, *patches: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """A picture with patches (pixels, logits of where they are) painted over it in turn."""
    image = background.copy()
    for pixels, logits in patches:
        image[logits > 0] = pixels[logits > 0]
    return image


def test_a_fast_object_is_carried_whole_where_dense_flow_leaves_it_behind():
    still, moving = texture()[::-1], 255 - texture()
    before, after = disc(40, 30), disc(48, 34)
    estimator = FlowEstimator()
    estimator.step(pasted(still, (moving, before)))
    flow = estimator.step(pasted(still, (np.roll(moving, (4, 8), (0, 1)), after)))
    (propagated,) = flow.propagate([before])
    assert pairwise_mask_iou((propagated.logits > 0)[None], (after > 0)[None])[0, 0] > 0.9
    assert pairwise_mask_iou((flow.warp(before) > 0)[None], (after > 0)[None])[0, 0] < 0.7
    assert propagated.shift == pytest.approx([8, 4], abs=0.5)


def test_what_comes_in_front_of_a_carried_object_is_not_taken_for_it():
    moving, front = texture(), np.full(SHAPE, 250, np.uint8)
    bar = np.full(SHAPE, -1.0, np.float32)
    bar[:, 60:80] = 1
    before, after = disc(50, 36), disc(54, 36)
    estimator = FlowEstimator()
    still = np.full(SHAPE, 90, np.uint8)
    estimator.step(pasted(still, (moving, before), (front, bar)))
    flow = estimator.step(pasted(still, (np.roll(moving, 4, 1), after), (front, bar)))
    seen = np.where(bar > 0, -1, before).astype(np.float32)
    (propagated,) = flow.propagate([seen])
    visible = (after > 0) & (bar < 0)
    assert pairwise_mask_iou((propagated.logits > 0)[None], visible[None])[0, 0] > 0.9


def test_points_that_moved_with_an_object_are_followed_on():
    """A few frames later they still lie in the object, and it is where they say."""
    estimator = FlowEstimator()
    estimator.step(texture())
    seen, followed = disc(50, 30), None
    for step in range(1, 5):
        flow = estimator.step(texture((3 * step, step)))
        (propagated,) = flow.propagate([seen], None if followed is None else [followed])
        if followed is not None:
            moved = propagated.points[:, None] - followed - (3, 1)
            assert (np.abs(moved).max(2).min(1) < 0.3).all()  # each is one of those before
        seen, followed = propagated.logits, propagated.points
        x, y = followed.round().astype(int).T
        assert len(followed) >= 24
        assert (seen[y, x] > 0).all()
    assert pairwise_mask_iou((seen > 0)[None], (disc(62, 34) > 0)[None])[0, 0] > 0.95
    lost, strangers = disc(50, 30), np.full((30, 2), 5, np.float32)
    (propagated,) = estimator.step(texture((12, 4))).propagate([lost], [strangers])
    assert len(propagated.points) == 0


def test_nothing_and_tiny_things_are_carried_too():
    estimator = FlowEstimator()
    estimator.step(texture())
    flow = estimator.step(texture((4, 2)))
    assert flow.propagate([]) == []
    nowhere, dot = np.full(SHAPE, -1, np.float32), disc(60, 30, 1.2)
    empty, tiny = flow.propagate([nowhere, dot])
    assert not (empty.logits > 0).any()
    assert np.isfinite(empty.shift).all()
    assert tiny.shift == pytest.approx([4, 2], abs=1)


def test_what_most_of_the_image_does_is_the_camera_s():
    estimator = FlowEstimator()
    estimator.step(texture())
    camera = estimator.step(texture((5, -3))).camera
    assert camera.moved(np.array([40.0, 30])) == pytest.approx([45, 27], abs=0.3)
    assert camera.scale == pytest.approx(1, abs=0.01)


def test_a_hidden_object_is_expected_where_the_camera_has_moved_it():
    tracker = tracker_with((40, 30))
    (track,) = tracker.tracks
    tracker.mark_occluded(track)
    estimator = FlowEstimator()
    estimator.step(texture())
    for step in (1, 2, 3):
        tracker.advance(estimator.step(texture((4 * step, 2 * step))), 0.04)
    assert track.motion.value[:2] == pytest.approx([52, 36], abs=1.5)


def test_flow_inside_the_mask_gives_the_velocity_at_once():
    motion = KalmanBox.start(np.array([10.0, 10, 30, 40]))
    motion.predict(0.04)
    motion.update(np.array([10.0, 10, 30, 40]), np.array([25.0, 0.0]))
    assert motion.rate[0] == pytest.approx(25, rel=0.2)


def test_a_cut_stands_out_from_any_motion():
    estimator = FlowEstimator()
    estimator.step(texture())
    moved = estimator.step(texture((9, 7)))
    cut = estimator.step(np.ascontiguousarray(texture()[::-1, ::-1]))
    assert moved.residual < 0.3
    assert cut.residual > 0.6


def test_flow_of_a_tiny_image_stands_still():
    estimator = FlowEstimator()
    estimator.step(np.zeros((1, 1), np.uint8))
    flow = estimator.step(np.zeros((1, 1), np.uint8))
    assert flow.warp(np.ones((1, 1), np.float32))[0, 0] == 1


def tracker_with(*centers: tuple[float, float], **settings) -> Tracker:
    tracker = Tracker(TrackerSettings(**settings))
    tracker.admit([Detection(disc(*c), 0.9) for c in centers], 0.0, confirmed=True)
    return tracker


def test_admitted_at_once_gets_an_id_and_is_shown():
    tracker = tracker_with((30, 30), (90, 40))
    assert [(t.id, t.state) for t in tracker.tracks] == [
        (1, TrackState.TRACKED),
        (2, TrackState.TRACKED),
    ]


def test_identities_follow_the_masks_not_the_order_of_detections():
    tracker = tracker_with((30, 30), (90, 40))
    tracker.associate(
        tracker.live(), [Detection(disc(91, 40), 0.8), Detection(disc(31, 30), 0.8)], 0.2
    )
    left, right = tracker.tracks
    assert box_of(left.mask)[0] < box_of(right.mask)[0]
    assert (left.id, right.id) == (1, 2)


def test_new_object_is_shown_only_after_enough_keyframes():
    tracker = Tracker(TrackerSettings(confirm_hits=2))
    tracker.admit([Detection(disc(30, 30), 0.9)], 0.0, confirmed=False)
    (track,) = tracker.tracks
    assert (track.state, track.id, track.visible) == (TrackState.TENTATIVE, 0, False)
    tracker.associate(tracker.live(), [Detection(disc(30, 30), 0.9)], 0.2)
    assert (track.state, track.id) == (TrackState.TRACKED, 1)


def test_tentative_object_that_is_not_seen_again_is_forgotten_without_an_id():
    tracker = Tracker(TrackerSettings(confirm_hits=2))
    tracker.admit([Detection(disc(30, 30), 0.9)], 0.0, confirmed=False)
    tracker.associate(tracker.live(), [], 0.2)
    assert tracker.tracks == []
    tracker.admit([Detection(disc(90, 30), 0.9)], 0.4, confirmed=True)
    assert tracker.tracks[0].id == 1


def test_without_an_id_left_no_object_is_added(caplog):
    tracker = Tracker(TrackerSettings(confirm_hits=2, last_id=2))
    found = [Detection(disc(x, 30), 0.9) for x in (20, 60, 100)]
    tracker.admit(found, 0.0, confirmed=False)
    tracker.associate(tracker.live(), found, 0.2)
    tracker.admit([Detection(disc(60, 60), 0.9)], 0.4, confirmed=True)
    assert [t.id for t in tracker.tracks] == [1, 2]
    assert tracker.full
    assert caplog.text.count("all 2 ids are used") == 1


def test_lost_then_found_keeps_its_id_then_expires_and_the_id_is_not_reused():
    tracker = tracker_with((30, 30), lost_after_misses=2, remove_after_s=1.0)
    (track,) = tracker.tracks
    tracker.associate(tracker.live(), [], 0.2)
    assert track.state == TrackState.TRACKED
    tracker.associate(tracker.live(), [], 0.4)
    assert (track.state, track.visible) == (TrackState.LOST, False)
    tracker.admit([Detection(disc(33, 30), 0.9)], 0.6, confirmed=False)
    assert (track.id, track.state) == (1, TrackState.REENTERED)
    tracker.advance(None, 0.04)
    assert track.state == TrackState.TRACKED
    for now in (0.8, 1.0, 2.5):
        tracker.associate(tracker.live(), [], now)
    assert tracker.tracks == []
    tracker.admit([Detection(disc(33, 30), 0.9)], 2.6, confirmed=True)
    assert tracker.tracks[0].id == 2


def test_what_is_found_where_a_lost_object_is_expected_must_look_like_it():
    tracker = tracker_with((30, 30), lost_after_misses=1)
    tracker.associate(tracker.live(), [], 0.2)
    found = [Detection(disc(33, 30), 0.9)]
    tracker.admit(found, 0.4, confirmed=True, looks_alike=lambda track, seen: False)
    assert [(t.id, t.visible) for t in tracker.tracks] == [(1, False), (2, True)]


def test_how_far_an_object_moved_is_counted_from_the_last_keyframe():
    tracker = tracker_with((60, 36))
    estimator = FlowEstimator()
    estimator.step(texture())
    for step in (1, 2, 3):
        tracker.advance(estimator.step(texture((4 * step, 0))), 0.04)
    (track,) = tracker.tracks
    side = np.sqrt(track.mask.sum())
    assert track.traveled == pytest.approx(12 / side, rel=0.15)
    assert tracker.moved_far(0.4)
    assert not tracker.moved_far(0.8)
    tracker.associate(tracker.live(), [Detection(track.logits, 0.9)], 0.2)
    assert not tracker.moved_far(0.01)


def test_growing_and_turning_count_as_moving():
    tracker = tracker_with((60, 36))
    estimator = FlowEstimator()
    estimator.step(texture())
    flow = estimator.step(texture())
    (track,) = tracker.tracks
    for motion, moved in (((1.2, 0), 0.1), ((1, 0.2), 0.1), ((1, 0), 0.0)):
        track.traveled = 0.0
        grown = np.array([[motion[0], -motion[1], 0], [motion[1], motion[0], 0]])
        track.propagate(Propagated(track.logits, np.zeros(2), grown), flow, 0.04)
        assert track.traveled == pytest.approx(moved)


def test_a_keyframe_for_some_objects_says_nothing_of_the_others():
    tracker = tracker_with((30, 30), (90, 40), lost_after_misses=1)
    moving, other = tracker.tracks
    moving.traveled = other.traveled = 0.3
    tracker.associate([moving], [Detection(disc(31, 30), 0.8)], 0.2)
    assert (moving.traveled, other.traveled) == (0.0, 0.3)
    assert (other.state, other.misses) == (TrackState.TRACKED, 0)


def test_prompted_object_is_never_given_up_and_its_id_is_kept_from_seeds():
    tracker = Tracker(TrackerSettings(lost_after_misses=1, remove_after_s=0.1), first_id=8)
    tracker.set(7, disc(30, 30), 0.9, 0.0)
    tracker.associate(tracker.live(), [], 5.0)
    assert tracker.find(7).state == TrackState.LOST
    tracker.admit([Detection(disc(90, 30), 0.9)], 5.0, confirmed=True)
    assert sorted(t.id for t in tracker.tracks) == [7, 8]
    tracker.remove(7)
    assert tracker.find(7) is None


def test_after_a_cut_no_object_takes_over_an_identity():
    tracker = tracker_with((30, 30))
    tracker.set(5, disc(90, 40), 0.9, 0.0)
    tracker.mark_all_lost()
    assert [(t.id, t.state) for t in tracker.tracks] == [(5, TrackState.LOST)]
    assert not tracker.occupied_mask(SHAPE).any()
    tracker.admit([Detection(disc(c, 40), 0.9) for c in (30, 90)], 0.1, confirmed=True)
    assert [t.id for t in tracker.tracks if t.visible] == [6, 7]
