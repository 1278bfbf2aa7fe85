"""Everything mode: the lattice, the budget, and the defects of the reference that it avoids.

`DiscSegmenter` answers every point with the disc it lies in, so that the result is known exactly.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest

from maskstream.pipeline.config import SeedingConfig
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.models.find import find_model
from maskstream.pipeline.segmenter.everything import (
    TINYSAM,
    EverythingChoice,
    EverythingSearch,
    coarse_points,
    find_everything,
    fine_points,
    grid_passes,
)
from maskstream.pipeline.segmenter.geometry import InputGeometry
from maskstream.pipeline.segmenter.labels import BOX_TOP_LEFT
from maskstream.pipeline.segmenter.model import (
    Decoded,
    Features,
    ModelCard,
    PromptBatch,
    read_card,
)
from maskstream.pipeline.segmenter.prompt_batches import BATCH as DECODER_BATCH
from maskstream.pipeline.segmenter.proposals import (
    Proposal,
    ScoredBoxes,
    refine,
    separate_objects,
    suppress_boxes,
    suppress_duplicates,
    suppress_parts,
)
from maskstream.pipeline.tracking.seeding import Seeder, scattered_points

GEOMETRY = InputGeometry.fit((256, 512), 512, 32)
NOTHING = np.zeros(GEOMETRY.grid_hw, bool)
CONFIG = SeedingConfig(
    coarse_points_per_side=4, fine_points_per_side=16, area_min=0.0005, area_max=1
)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """Logits [4h, 4w] of a disc at frame pixels (x, y)."""
    rows, columns = np.mgrid[: GEOMETRY.grid_hw[0], : GEOMETRY.grid_hw[1]]
    distance = np.hypot(4 * columns + 2 - x, 4 * rows + 2 - y)
    return (np.clip((radius - distance) * 3, -20, 20)).astype(np.float32)


@dataclass
class DiscSegmenter:
    """A segmenter of a picture of discs; points beside every disc get an unsure answer."""

    discs: list[tuple[float, float, float]]
    geometry: InputGeometry = GEOMETRY
    asked: list[tuple[float, float]] = field(default_factory=list)

    def decode(self, features: Features, prompts: PromptBatch) -> Decoded:
        masks, iou = [], []
        boxed = prompts.labels[:, 0] == BOX_TOP_LEFT
        asked = np.where(boxed[:, None], prompts.xy.mean(1), prompts.xy[:, 0])
        for x, y in asked:
            self.asked.append((float(x), float(y)))
            hit = [d for d in self.discs if np.hypot(d[0] - x, d[1] - y) < d[2]]
            masks.append(disc(*hit[0]) if hit else np.full(GEOMETRY.grid_hw, -5, np.float32))
            iou.append(0.95 if hit else 0.1)
        stacked = np.repeat(np.stack(masks)[:, None], 4, 1)
        return Decoded(stacked, np.repeat(np.array(iou, np.float32)[:, None], 4, 1))


def search(segmenter: DiscSegmenter, occupied_mask=NOTHING, config=CONFIG) -> EverythingSearch:
    return EverythingSearch(segmenter, Features({}), occupied_mask, config)


def test_lattice_of_the_second_pass_is_the_releases():
    """8/32: a 4x4 stencil of fine strides {-1, 0, 1, 2} around each coarse point but itself."""
    assert len(coarse_points(8)) == 64
    points = fine_points(8, 32)
    assert len(points) <= 960
    around_first = points[:15] * 32
    assert {tuple(np.rint(p).astype(int)) for p in around_first} == {
        (2 + dx, 2 + dy) for dx in (-1, 0, 1, 2) for dy in (-1, 0, 1, 2) if (dx, dy) != (0, 0)
    }
    assert len(fine_points(8, 8)) == 0


def test_finds_each_disc_once_large_in_the_first_pass_small_in_the_second():
    discs = [(100, 100, 60), (300, 60, 40), (416, 208, 12)]
    found = search(DiscSegmenter(discs)).run(10_000)
    centers = {
        tuple(np.rint(np.argwhere(p.logits > 0).mean(0)[::-1] * 4 / 20).astype(int)) for p in found
    }
    assert centers == {(round(x / 20), round(y / 20)) for x, y, _ in discs}


def test_second_pass_skips_what_the_first_answered():
    segmenter = DiscSegmenter([(256, 128, 500)])
    search(segmenter).run(10_000)
    assert len(segmenter.asked) == 16


def test_area_of_live_tracks_is_never_asked():
    segmenter = DiscSegmenter([])
    occupied_mask = NOTHING.copy()
    occupied_mask[:, : occupied_mask.shape[1] // 2] = True
    search(segmenter, occupied_mask).run(10_000)
    assert segmenter.asked
    assert min(x for x, _ in segmenter.asked) >= 256


@pytest.mark.parametrize("occupied_mask", [NOTHING, ~NOTHING])
def test_nothing_to_find_or_nothing_to_ask_gives_nothing(occupied_mask):
    """The reference crashes when a pass keeps nothing, or when the second has no points."""
    assert search(DiscSegmenter([]), occupied_mask).run(10_000) == []


def test_budget_bounds_the_prompts_and_the_work_can_go_on():
    segmenter = DiscSegmenter([])
    steps = search(segmenter).steps()
    first = next(steps)
    assert first == 16 == len(segmenter.asked)
    assert sum(steps) == len(segmenter.asked) - 16 > 100


def test_turns_fill_the_decoders_batches_and_still_ask_every_point():
    segmenter = DiscSegmenter([])
    occupied_mask = NOTHING.copy()
    occupied_mask[:9, :9] = True
    turns = grid_passes(8, 32)
    asking = EverythingSearch(segmenter, Features({}), occupied_mask, CONFIG, passes=turns)
    odd = [count for count in asking.steps() if count % DECODER_BATCH]
    assert len(odd) <= 2  # the end of the first turn, and of the last
    points = {tuple(p) for turn in turns for p in turn.points}
    free = {(x, y) for x, y in points if not occupied_mask[int(y * 64), int(x * 128)]}
    assert len(segmenter.asked) == len(set(segmenter.asked)) == len(free)


def test_nested_objects_are_both_kept_but_only_the_better_duplicate():
    whole, part, again = (
        Proposal(disc(200, 100, 60), 0.9, 1.0),
        Proposal(disc(200, 100, 20), 0.8, 1.0),
        Proposal(disc(202, 100, 60), 0.7, 1.0),
    )
    assert suppress_duplicates([again, part, whole], 0.7) == [whole, part]
    assert suppress_duplicates([], 0.7) == []


def test_a_part_gives_way_to_a_whole_that_is_nearly_as_sure():
    part, apart = Proposal(disc(200, 100, 20), 0.8, 1.0), Proposal(disc(60, 100, 20), 0.8, 1.0)
    sure, unsure = (Proposal(disc(200, 100, 60), iou, 1.0) for iou in (0.75, 0.5))
    assert suppress_parts([sure, part, apart], 0.8, 0.8) == [sure, apart]
    assert suppress_parts([unsure, part, apart], 0.8, 0.8) == [unsure, part, apart]


def test_objects_on_others_are_not_admitted():
    whole = Proposal(disc(200, 100, 60), 0.9, 1.0)
    part = Proposal(disc(200, 100, 20), 0.8, 1.0)
    beside = Proposal(disc(400, 100, 20), 0.7, 1.0)
    assert separate_objects([whole, part, beside], NOTHING, 0.3, 9) == [whole, beside]
    assert separate_objects([whole, part, beside], NOTHING, 0.3, 1) == [whole]
    assert separate_objects([whole, beside], whole.logits > 0, 0.3, 9) == [beside]


def test_scattered_points_go_round_the_whole_grid():
    asked = np.concatenate([scattered_points(16, start)[:32] for start in range(0, 256, 32)])
    assert len({tuple(p) for p in asked}) == 256
    quadrants = {tuple(p > 0.5) for p in scattered_points(16, 0)[:32]}
    assert len(quadrants) == 4


def test_asking_again_with_the_box_keeps_what_both_answers_agree_on():
    segmenter = DiscSegmenter([(100, 100, 40), (300, 100, 40)])
    object_, shifted, nothing = refine(
        segmenter,
        Features({}),
        [
            Proposal(disc(100, 100, 40), 0.5, 0.0),
            Proposal(disc(320, 120, 40), 0.5, 0.0),
            Proposal(disc(450, 200, 20), 0.5, 0.0),
        ],
    )
    assert object_.score > 0.9
    assert 0.2 < shifted.score < 0.6
    assert nothing.score == 0
    assert refine(segmenter, Features({}), []) == []


DISCS = [(100, 100, 60), (300, 60, 40), (416, 208, 20)]


def centers(proposals: list[Proposal]) -> set[tuple[int, ...]]:
    """Centers of masks to 20 frame pixels."""
    found = [np.argwhere(p.logits > 0).mean(0)[::-1] * 4 + 2 for p in proposals]
    return {tuple(np.rint(center / 20).astype(int).tolist()) for center in found}


@pytest.mark.parametrize("grid", ["hierarchical", "plain"])
def test_both_grids_find_every_disc_once_with_the_published_settings(grid):
    proposals, _ = find_everything(DiscSegmenter(DISCS), Features({}), TINYSAM, grid)
    assert len(proposals) == len(DISCS)
    assert centers(proposals) == {(round(x / 20), round(y / 20)) for x, y, _ in DISCS}


def test_plain_grid_asks_all_points_and_hierarchical_none_in_what_is_done():
    plain, hierarchical = DiscSegmenter(DISCS), DiscSegmenter(DISCS)
    assert find_everything(plain, Features({}), TINYSAM, "plain")[1] == len(plain.asked) == 1024
    _, prompts = find_everything(hierarchical, Features({}), TINYSAM, "hierarchical")
    assert prompts == len(hierarchical.asked)
    x, y, radius = DISCS[0]
    deep = [p for p in hierarchical.asked[64:] if np.hypot(p[0] - x, p[1] - y) < radius - 6]
    assert not deep
    assert 64 < prompts < 900


def test_turns_are_the_plain_grid_and_complete_each_doubling_before_the_next():
    turns = grid_passes(8, 32)
    asked = np.concatenate([turn.points for turn in turns])
    assert len(asked) == 32**2
    assert {tuple(p) for p in asked.tolist()} == {tuple(p) for p in coarse_points(32).tolist()}
    assert [turn.beside for turn in turns] == [False] * 4 + [True] * 12
    half = np.concatenate([turn.points for turn in turns[:4]])
    assert len(half) == 16**2
    assert (np.floor(half * 32) % 2 == 1).all()
    between = np.floor(turns[1].points * 32) % 4
    assert (between == 3).all()  # the first turn's are at 1, 5, ...


OTHER = ModelCard(name="tinysam", long_side=64, multiple=32, pad_rgb=(0, 0, 0), method="none")
LITE = read_card(find_model("lite"))
SPARING = TINYSAM.model_copy(update={"done_logit": 0.0, "neighbor_min": 0.35})


def test_ground_that_answers_nothing_is_asked_at_half_the_density():
    segmenter = DiscSegmenter([])
    proposals, prompts = find_everything(segmenter, Features({}), SPARING, "hierarchical")
    assert (proposals, prompts) == ([], 16**2)


def test_the_last_doubling_is_asked_beside_what_answered():
    segmenter = DiscSegmenter(DISCS)
    proposals, prompts = find_everything(segmenter, Features({}), SPARING, "hierarchical")
    assert centers(proposals) == {(round(x / 20), round(y / 20)) for x, y, _ in DISCS}
    assert prompts == len(segmenter.asked) < 330
    diagonal = np.hypot(*GEOMETRY.frame_hw) / 32
    for asked in segmenter.asked[16**2 :]:
        assert min(np.hypot(x - asked[0], y - asked[1]) - r for x, y, r in DISCS) < 1.01 * diagonal


def test_a_place_is_done_when_enough_kept_masks_cover_it():
    """Every point keeps three masks: the more of them it takes, the more is asked."""
    prompts = []
    for masks in (6, 24, 10_000):
        settings = SPARING.model_copy(update={"done_masks": masks})
        prompts.append(
            find_everything(DiscSegmenter(DISCS), Features({}), settings, "hierarchical")[1]
        )
    assert prompts == sorted(set(prompts))


def test_places_below_the_done_logit_are_asked_again():
    prompts = [
        find_everything(
            DiscSegmenter(DISCS),
            Features({}),
            EverythingChoice(done_logit=logit).settings(OTHER),
            "hierarchical",
        )[1]
        for logit in (0, 8.5, 20)
    ]
    assert prompts[0] <= prompts[1] < prompts[2] == 64 + len(fine_points(8, 32))


@pytest.mark.parametrize("grid", ["hierarchical", "plain"])
def test_unsure_answers_are_no_objects(grid):
    assert find_everything(DiscSegmenter([]), Features({}), TINYSAM, grid)[0] == []
    unsure = EverythingChoice(iou_min=0.96).settings(OTHER)
    assert find_everything(DiscSegmenter(DISCS), Features({}), unsure, grid)[0] == []


def test_an_empty_mask_is_no_object_however_low_the_thresholds():
    lowest = EverythingChoice(8, iou_min=0, stability_min=0).settings(OTHER)
    assert find_everything(DiscSegmenter([]), Features({}), lowest, "plain")[0] == []


def test_of_equal_boxes_the_higher_predicted_iou_stays():
    ring = disc(200, 100, 60)
    ring[disc(200, 100, 50) > 0] = -5
    whole, same_box = Proposal(disc(200, 100, 60), 0.8, 1.0), Proposal(ring, 0.9, 0.5)
    inside, beside = Proposal(disc(200, 100, 20), 0.7, 1.0), Proposal(disc(400, 100, 60), 0.6, 1.0)
    assert suppress_boxes([whole, inside, same_box, beside], 0.7) == [same_box, inside, beside]
    assert suppress_boxes([], 0.7) == []


def test_settings_are_the_published_ones_unless_the_model_or_somebody_says_otherwise():
    """FIELD.md 1.6: 8/32 points, predicted IoU 0.88, stability 0.95 at 1.0, logit 8.5, NMS 0.7."""
    published = EverythingChoice().settings(OTHER)
    assert published == TINYSAM
    assert (published.coarse_points_per_side, published.fine_points_per_side) == (8, 32)
    assert (published.iou_min, published.done_logit, published.duplicate_iou) == (0.88, 8.5, 0.7)
    assert (published.stability_min, published.stability_offset) == (0.95, 1.0)
    own = EverythingChoice().settings(LITE)
    assert own == TINYSAM.model_copy(update=LITE.everything)
    assert (own.iou_min, own.done_masks, own.neighbor_min) == (0.4, 12, 0.38)
    changed = EverythingChoice(16, iou_min=0.9).settings(LITE)
    assert (changed.coarse_points_per_side, changed.fine_points_per_side, changed.iou_min) == (
        4,
        16,
        0.9,
    )
    assert changed.stability_min == own.stability_min
    with pytest.raises(ConfigError, match="multiple of 4"):
        EverythingChoice(30)


CROWD = [(40 + 80 * column, 32 + 64 * row, 25) for row in range(4) for column in range(6)]


@pytest.mark.parametrize("budget", [1, 16, 128, 320])
def test_a_fresh_shot_spends_no_more_prompts_than_it_may(budget):
    """Asking again with boxes is counted, too."""
    segmenter = DiscSegmenter(CROWD)
    seeder = Seeder(segmenter, SeedingConfig(prompts_first=budget, max_objects=99))
    found = seeder.propose_after_cut(Features({}), NOTHING, 99)
    assert 0 < len(segmenter.asked) <= budget
    assert len(found) == len(centers(found))
    assert budget < 320 or len(found) == len(CROWD)


@pytest.mark.parametrize("budget", [1, 5, 16])
def test_a_later_keyframe_spends_no_more_prompts_than_it_may_and_the_next_goes_on(budget):
    segmenter = DiscSegmenter(CROWD)
    seeder = Seeder(segmenter, SeedingConfig(prompts_per_keyframe=budget))
    places = set()
    for keyframe in range(1, 257):
        seeder.propose_incremental(Features({}), NOTHING, 1, NOTHING)
        assert len(segmenter.asked) <= keyframe * budget
        places = {(x // 32, y // 16) for x, y in segmenter.asked}
    assert len(places) == 256
    assert seeder.propose_incremental(Features({}), NOTHING, 0, NOTHING) == []


def test_what_moves_is_asked_first():
    segmenter = DiscSegmenter(CROWD)
    moving = disc(*CROWD[8]) > 0
    found = Seeder(segmenter, SeedingConfig(prompts_per_keyframe=2)).propose_incremental(
        Features({}), NOTHING, 1, moving
    )
    x, y, radius = CROWD[8]
    assert np.hypot(segmenter.asked[0][0] - x, segmenter.asked[0][1] - y) < radius
    assert centers(found) == {(round(x / 20), round(y / 20))}


def boxes_around(discs, score=0.5) -> ScoredBoxes:
    """A box around each disc, best first."""
    corners = [(x - r, y - r, x + r, y + r) for x, y, r in discs]
    scores = np.linspace(score, score / 2, len(discs), dtype=np.float32)
    return ScoredBoxes(np.array(corners, np.float32).reshape(-1, 4), scores)


def test_boxes_are_the_prompts_and_points_are_asked_where_they_gave_no_mask():
    segmenter = DiscSegmenter(DISCS)
    boxes = boxes_around(DISCS[1:])
    found, prompts = find_everything(segmenter, Features({}), TINYSAM, "head", boxes)
    assert prompts == len(segmenter.asked) < 70
    assert segmenter.asked[:2] == [(x, y) for x, y, _ in DISCS[1:]]
    for x, y, radius in DISCS[1:]:
        assert min(np.hypot(px - x, py - y) for px, py in segmenter.asked[2:]) > radius - 6
    assert len(found) == len(DISCS)  # the large one by points
    assert centers(found) == {(round(x / 20), round(y / 20)) for x, y, _ in DISCS}


def test_no_boxes_leave_the_coarse_grid_and_none_given_is_an_error():
    segmenter = DiscSegmenter([])
    found, prompts = find_everything(segmenter, Features({}), TINYSAM, "head", boxes_around([]))
    assert (found, prompts) == ([], 64)
    with pytest.raises(ValueError, match="boxes of the head"):
        find_everything(segmenter, Features({}), TINYSAM, "head")


@pytest.mark.parametrize("budget", [1, 16, 128])
def test_seeding_from_boxes_spends_no_more_prompts_than_it_may(budget):
    segmenter = DiscSegmenter(CROWD)
    seeder = Seeder(
        segmenter, SeedingConfig(prompts_first=budget, prompts_per_keyframe=budget, max_objects=99)
    )
    boxes = boxes_around(CROWD, 1.0)
    found = seeder.propose_after_cut(Features({}), NOTHING, 99, boxes)
    assert 0 < len(segmenter.asked) <= budget
    assert len(found) == min(budget, len(CROWD))
    before = len(segmenter.asked)
    seeder.propose_incremental(Features({}), NOTHING, 99, ~NOTHING, boxes=boxes)
    assert 0 < len(segmenter.asked) - before <= budget


def test_boxes_that_tracks_fill_or_that_are_unsure_are_not_asked_about():
    segmenter = DiscSegmenter(CROWD[:3])
    tracked = disc(*CROWD[0]) > 0
    boxes = boxes_around(CROWD[:3], 0.2)  # scores 0.2, 0.15, 0.1
    config = SeedingConfig(box_score_min=0.12, score_min=0.5)
    found = Seeder(segmenter, config).propose_incremental(
        Features({}), tracked, 9, NOTHING, boxes=boxes
    )
    x, y, _ = CROWD[1]
    assert segmenter.asked == [(x, y)]
    assert centers(found) == {(round(x / 20), round(y / 20))}


def test_boxes_of_the_last_keyframe_wait_for_the_others():
    segmenter = DiscSegmenter(CROWD[:3])
    seeder = Seeder(segmenter, SeedingConfig(prompts_per_keyframe=4))
    asked = []
    for _ in range(3):
        segmenter.asked.clear()
        seeder.propose_incremental(Features({}), NOTHING, 9, NOTHING, boxes=boxes_around(CROWD[:3]))
        asked.append([CROWD.index((int(x), int(y), 25)) for x, y in segmenter.asked])
    assert asked == [[0, 1], [2], [0, 1]]
