"""The trainer of the objectness head: targets, losses, batches, resuming, and the graph."""

from math import exp

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from maskstream.pipeline.errors import ModelError, TrainingDataError  # noqa: E402
from maskstream.pipeline.lab.training.objectness.cache import (  # noqa: E402
    BatchMaker,
    batches,
    label_boxes,
    prepare_batches,
)
from maskstream.pipeline.lab.training.objectness.config import (  # noqa: E402
    ObjectnessTrainConfig,
)
from maskstream.pipeline.lab.training.objectness.targets import assign  # noqa: E402
from maskstream.pipeline.lab.training.objectness.trainer import (  # noqa: E402
    ObjectnessTrainer,
    box_iou,
    decode,
    giou,
    quality_focal,
)
from maskstream.pipeline.objectness.card import ObjectnessCard  # noqa: E402
from maskstream.pipeline.objectness.graph import write_objectness  # noqa: E402
from maskstream.pipeline.objectness.model import INPUTS, ObjectnessModel  # noqa: E402
from maskstream.pipeline.objectness.network import INPUT_CHANNELS, ObjectnessNetwork  # noqa: E402
from maskstream.pipeline.segmenter.geometry import InputGeometry  # noqa: E402
from maskstream.pipeline.segmenter.model import Features  # noqa: E402

CARD = ObjectnessCard(encoder="lite", encoder_hash="0", source="test")
SMALL, MIDDLE, LARGE = (40, 40, 60, 60), (100, 100, 180, 180), (0, 0, 256, 256)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A source of images with two discs of random colors, and a configuration of four steps."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("images", "masks"):
        (root / "discs" / kind).mkdir(parents=True)
    rng = np.random.default_rng(3)
    for number in range(20):
        image = rng.integers(0, 60, (240, 320, 3)).astype(np.uint8)
        labels = np.zeros((240, 320), np.uint8)
        for label, x in ((1, 90), (2, 230)):
            color = tuple(int(c) for c in rng.integers(90, 255, 3))
            cv2.circle(image, (x, 120), 50, color, -1)
            cv2.circle(labels, (x, 120), 50, label, -1)
        cv2.imwrite(str(root / "discs" / "images" / f"d{number:02}.png"), image)
        cv2.imwrite(str(root / "discs" / "masks" / f"d{number:02}.png"), labels)
    config = ObjectnessTrainConfig(
        name="test",
        data=root,
        sizes_hw=((96, 512),),
        batches=2,
        batch=2,
        steps=4,
        warmup=1,
        checkpoint_every=2,
        out=tmp_path_factory.mktemp("run"),
    )
    assert list(prepare_batches(config)) == [1, 2]
    return config


@pytest.mark.parametrize(
    ("box", "fine", "coarse"),
    [(SMALL, True, False), (MIDDLE, True, True), (LARGE, False, True)],
)
def test_a_box_is_learned_at_the_stride_of_its_size_and_ignored_at_the_other(box, fine, coarse):
    boxes = torch.tensor([box], dtype=torch.float32)
    for stride, learned in ((8, fine), (16, coarse)):
        targets = assign(boxes, (256 // stride, 256 // stride), stride, coarsest=stride == 16)
        assert (len(targets.cells) > 0) is learned
        assert bool(targets.ignored.any()) is not learned
        assert (targets.boxes == boxes).all()


def test_of_two_boxes_a_cell_learns_the_smaller():
    boxes = torch.tensor([[8, 8, 88, 88], [32, 32, 64, 64]], dtype=torch.float32)
    targets = assign(boxes, (16, 16), 8, coarsest=False)
    inner = (targets.boxes == boxes[1]).all(1)
    middle = {16 * row + column for row in (5, 6) for column in (5, 6)}
    assert set(targets.cells[inner].tolist()) >= middle


def test_an_image_without_objects_is_all_background():
    targets = assign(torch.zeros(0, 4), (4, 4), 8, coarsest=False)
    assert (len(targets.cells), int(targets.ignored.sum())) == (0, 0)


def test_boxes_and_their_losses_by_hand():
    center = torch.tensor([[20.0, 20.0]])
    box = decode(torch.log(torch.tensor([[1.0, 0.5, 2.0, 1.0]])), center, 8)
    np.testing.assert_allclose(box, [[12, 16, 36, 28]], rtol=1e-5)
    a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
    assert float(box_iou(a, b)) == pytest.approx(1 / 3)
    far = torch.tensor([[8.0, 0, 10, 2]])
    assert float(giou(a, far)) == pytest.approx(-12 / 20)
    right = torch.tensor(1 / (1 + exp(-2.0)))
    assert float(quality_focal(torch.tensor(2.0), right)) == pytest.approx(0, abs=1e-6)


def test_boxes_of_a_label_map_and_of_all_objects_together():
    labels = np.zeros((100, 200), np.int32)
    labels[10:30, 20:60] = 1
    labels[50:90, 100:180] = 2
    labels[0, 0] = 3  # a speck
    assert label_boxes(labels).tolist() == [[20, 10, 60, 30], [100, 50, 180, 90]]
    assert label_boxes(labels, whole=True)[-1].tolist() == [0, 0, 180, 90]
    assert label_boxes(np.zeros_like(labels)).shape == (0, 4)


@pytest.mark.slow
def test_a_batch_is_a_function_of_its_number(config):
    maker = BatchMaker(config)
    first, again = maker(0), BatchMaker(config)(0)
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    assert [first[n].shape[:2] for n in INPUTS] == [(2, c) for c in INPUT_CHANNELS]
    assert first["features_s8"].shape[2:] == (12, 64)
    assert (first["embedding"] != maker(1)["embedding"]).any()


@pytest.mark.slow
def test_a_resumed_run_equals_one_in_one_piece_and_learns(config, tmp_path):
    whole = ObjectnessTrainer(config.model_copy(update={"out": copied(config, tmp_path / "a")}))
    whole.run()
    parts = config.model_copy(update={"out": copied(config, tmp_path / "b")})
    half = ObjectnessTrainer(parts)
    for _ in range(2):
        half.train_step(half._batch())
        half.step += 1
    half.save()
    resumed = ObjectnessTrainer(parts)
    resumed.run()
    assert (whole.step, resumed.step) == (4, 4)
    for name, value in whole.average.items():
        assert torch.equal(value, resumed.average[name]), name


def copied(config, folder):
    """A run's folder with the batches of another."""
    folder.mkdir()
    for file in batches(config.folder):
        (folder / file.name).hardlink_to(file)
    return folder


@pytest.mark.slow
def test_without_batches_there_is_nothing_to_train(config, tmp_path):
    with pytest.raises(TrainingDataError, match="no batches"):
        ObjectnessTrainer(config.model_copy(update={"out": tmp_path}))


@torch.no_grad()
def test_the_graph_equals_the_network(tmp_path):
    torch.manual_seed(0)
    network = ObjectnessNetwork().eval()
    network.coarse.out.bias[0] = 2.0  # so that every coarse cell is a box
    write_objectness(network.state_dict(), tmp_path, CARD)
    h, w = 6, 8
    maps = [torch.randn(1, c, h * k, w * k) for c, k in zip(INPUT_CHANNELS, (2, 1, 1), strict=True)]
    model = ObjectnessModel(tmp_path, threads=1)
    features = Features({n: m.numpy() for n, m in zip(INPUTS, maps, strict=True)})
    out = model._maps(features)
    for found, wanted in zip(out, network(*maps), strict=True):
        np.testing.assert_allclose(found, wanted[0], atol=2e-2)
    boxes = model.propose(features, InputGeometry.fit((96, 128), 128, 32))
    assert len(boxes) > 0


def test_other_weights_are_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="not weights of the head"):
        write_objectness({"x": torch.zeros(1)}, tmp_path, CARD)
