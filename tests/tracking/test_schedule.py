"""Keyframes by need: bought by work that is left, where masks are in doubt, the same every time."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from maskstream.pipeline.cli.options import Preset
from maskstream.pipeline.config import (
    KeyframeConfig,
    PipelineConfig,
    QueueConfig,
    SeedingConfig,
    load_config,
)
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.lab.evaluation.video.clips import set_task
from maskstream.pipeline.lab.evaluation.video.evaluate import prompts_for
from maskstream.pipeline.lab.evaluation.video.generated import generated_clips
from maskstream.pipeline.lab.evaluation.video.sprites import SpriteImages
from maskstream.pipeline.models.networks import open_networks
from maskstream.pipeline.models.open import locate_model
from maskstream.pipeline.sources import ArraySource
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.tracking.schedule import (
    KeyframeSchedule,
    Terms,
    WorkWeights,
    schedule_for,
)
from maskstream.trackers.need import Need
from tests.engine.test_pipeline import boxes_on_first_frame
from tests.support.media import moving_shapes, write_video
from tests.support.stores import assert_equal
from tests.test_presets import SHIPPED

WEIGHTS = WorkWeights(encoder_megapixel=58.0)  # of the embedded model
TERMS = Terms(work=0.45, need_least=0.03, need_most=0.2)
HD, INPUT = (720, 1280), (288, 512)
CALM = {"loose": 0.0, "occluded": 0.0, "border": 0.0, "shift": 0.0}


def account(work: float = 0.45) -> KeyframeSchedule:
    return KeyframeSchedule(replace(TERMS, work=work), WEIGHTS, HD, INPUT)


def bought(needs, objects: int = 1, step_s: float = 1 / 25, work: float = 0.45) -> int:
    """Keyframes that the needs of successive frames buy."""
    schedule, count = account(work), 0
    for need in needs:
        schedule.earn(step_s, objects)
        if schedule.buys(need, objects):
            schedule.pay(objects)
            count += 1
    return count


@pytest.mark.parametrize("objects", [1, 5, 10, 50])
@pytest.mark.parametrize("step_s", [1 / 60, 1 / 25, 1.0])
def test_the_budget_is_never_exceeded(objects, step_s):
    schedule, spent = account(), 0.0
    earned = TERMS.saved * schedule.cost(objects)  # at the beginning
    for need in np.random.default_rng(0).uniform(0, 0.5, 500):
        schedule.earn(step_s, objects)
        earned += max(0.0, schedule.income(step_s, objects))
        if schedule.buys(need, objects):
            schedule.pay(objects)
            spent += schedule.cost(objects)
        assert schedule.credit >= 0 or schedule.income(step_s, objects) < 0
        assert spent <= earned


def test_more_objects_and_faster_clips_buy_fewer_keyframes_and_more_work_buys_more():
    needs = [0.5] * 200
    by_objects = [bought(needs, objects=count) for count in (1, 5, 10, 50)]
    assert by_objects == sorted(by_objects, reverse=True)
    assert by_objects[0] >= 100  # half of the frames or more, of one object at 25 a second
    assert by_objects[-1] <= TERMS.saved  # what it began with
    assert bought(needs, 5, 1 / 15) > bought(needs, 5, 1 / 25) > bought(needs, 5, 1 / 30)
    assert bought(needs, 5, 1 / 60) == bought(needs, 5, 1 / 30)
    assert bought(needs[:2], 5) == 2  # from the first frame on
    assert bought(needs, 5, work=0.75) > bought(needs, 5)


def test_a_small_need_waits_for_credit_and_none_buys_nothing():
    assert bought([0.02] * 200) == 0
    few, many = bought([0.05] * 200), bought([0.3] * 200)
    assert 0 < few < many


def test_debt_is_paid_before_anything_is_bought_and_has_a_bound():
    schedule = account()
    for _ in range(100):  # prompts on every frame
        schedule.pay(10)
        schedule.earn(1 / 25, 10)
    assert not schedule.buys(1.0, 10)
    for _ in range(60):
        schedule.earn(1 / 25, 1)
    assert schedule.buys(1.0, 1)


@pytest.mark.parametrize("sign", CALM)
def test_every_sign_of_trouble_is_a_need(sign):
    calm = Need().propagated(**CALM)
    assert calm.due == 0
    assert calm.propagated(**CALM | {sign: 0.5}).due > 0


def test_what_keyframes_correct_is_expected_again():
    seen = Need().propagated(**CALM).propagated(**CALM).looked_at(0.2)
    assert (seen.due, seen.usual) == (0, 0.05)  # half of 0.1 a frame
    assert seen.propagated(**CALM).due == pytest.approx(0.05)
    assert seen.propagated(**CALM).looked_at(0.0).usual == pytest.approx(0.025)
    assert seen.propagated(**CALM).expected(2, looked_at=False) > seen.expected(2, looked_at=True)


# On pixels.


def config(**keyframes) -> PipelineConfig:
    return PipelineConfig(
        keyframes=KeyframeConfig(**keyframes), seeding=SeedingConfig(enabled=False)
    )


@pytest.fixture(scope="module")
def deforming():
    """A drawn shape that changes, and where it is given."""
    (entry,) = [c for c in generated_clips(SpriteImages()) if c.name == "deformation"]
    task = set_task(entry.name, entry.load())
    return task.clip.source, prompts_for(task, "mask")


@pytest.fixture(scope="module")
def still(deforming):
    """Its first frame, held."""
    source, prompts = deforming
    with source.open() as reader:
        first = next(iter(reader)).rgb()
    return ArraySource([first] * 32, Fraction(25)), prompts


def followed(clip, chosen: PipelineConfig):
    return list(Pipeline(chosen).stream(*clip))


def keyframes(results) -> list[int]:
    return [r.index for r in results if r.keyframe]


def test_a_still_scene_has_regular_keyframes_only(still):
    assert keyframes(followed(still, config())) == [0, 8, 16, 24]


def test_a_deforming_object_has_many_beside_the_regular_ones(deforming):
    results = followed(deforming, config())
    found, regular = keyframes(results), set(range(0, len(results), 8))
    assert regular < set(found)
    assert len(found) > 0.4 * len(results)
    few = keyframes(followed(deforming, config(work=0.15)))
    assert len(keyframes(followed(deforming, config(work=0)))) <= len(few) < len(found)


@pytest.mark.slow
def test_runs_repeat_themselves_whatever_is_encoded_ahead(deforming):
    first, second, at_once = (followed(deforming, config(**k)) for k in ({}, {}, {"lookahead": 0}))
    for one, other, third in zip(first, second, at_once, strict=True):
        assert_equal(one, other)
        assert_equal(one, third)


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_bit_for_bit(cli, tmp_path):
    frames, masks = moving_shapes(30, (180, 320), shapes=2, seed=3)
    write_video(tmp_path / "clip.mp4", frames)
    (tmp_path / "p.json").write_text(boxes_on_first_frame(masks).model_dump_json())
    run = ("run", tmp_path / "clip.mp4", "--prompts", tmp_path / "p.json", "--no-refine", "--quiet")
    for name, options in (("a", ()), ("b", ("--end", "13")), ("b", ("--resume",))):
        code, _, err = cli(*run, "-o", tmp_path / f"{name}.zarr", *options)
        assert code == 0, err
    whole = list(MaskStore(tmp_path / "a.zarr"))
    for one, other in zip(whole, MaskStore(tmp_path / "b.zarr"), strict=True):
        assert_equal(one, other)
    assert not {r.index for r in whole if r.keyframe} <= set(range(0, 30, 8))


@pytest.mark.parametrize(
    ("name", "by_need"), [("fast", False), ("balanced", True), ("quality", False)]
)
def test_presets(name, by_need):
    chosen = load_config(SHIPPED / f"{name}.yaml")
    networks = open_networks(chosen, locate_model(chosen), (90, 160))
    assert (schedule_for(chosen, networks) is not None) == by_need
    assert chosen.keyframes.interval == {"fast": 8, "balanced": 8, "quality": 1}[Preset(name)]
    live = chosen.model_copy(update={"queue": QueueConfig(policy="latest")})
    assert schedule_for(live, networks) is None
