"""The trainer of the memory: sequences, resuming, and graphs that equal the network."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from maskstream.pipeline.errors import ConfigError, ModelError, TrainingDataError  # noqa: E402
from maskstream.pipeline.lab.training.video.cache import (  # noqa: E402
    chunks,
    read_chunk,
    write_chunk,
)
from maskstream.pipeline.lab.training.video.config import (  # noqa: E402
    VideoTrainConfig,
    load_video_config,
)
from maskstream.pipeline.lab.training.video.rollout import predict, remember  # noqa: E402
from maskstream.pipeline.lab.training.video.sequences import (  # noqa: E402
    OBJECTS,
    SIZE_HW,
    SequenceSampler,
)
from maskstream.pipeline.lab.training.video.trainer import (  # noqa: E402
    VideoTrainer,
    prepare_sequences,
    to_batch,
)
from maskstream.pipeline.memory.bank import (  # noqa: E402
    REFERENCE_CELLS,
    MemoryBank,
    MemorySettings,
)
from maskstream.pipeline.memory.card import MemoryCard  # noqa: E402
from maskstream.pipeline.memory.features import NAMES, FrameFeatures  # noqa: E402
from maskstream.pipeline.memory.graphs import write_memory  # noqa: E402
from maskstream.pipeline.memory.model import MemoryModel, joint_logits  # noqa: E402
from maskstream.pipeline.memory.network import MemoryNetwork  # noqa: E402
from maskstream.pipeline.quantization.memory_graphs import (  # noqa: E402
    MemoryComparison,
    check_memory,
    compare_memories,
    write_int8,
)

pytestmark = pytest.mark.slow

CARD = MemoryCard(encoder="lite", encoder_hash="0", source="test")
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "train"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A source of images with discs of random colors."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("images", "masks"):
        (root / "discs" / kind).mkdir(parents=True)
    rng = np.random.default_rng(3)
    for number in range(30):
        image = rng.integers(0, 60, (240, 320, 3)).astype(np.uint8)
        labels = np.zeros((240, 320), np.uint8)
        for label, x in ((1, 90), (2, 230)):
            color = tuple(int(c) for c in rng.integers(90, 255, 3))
            radius = int(rng.integers(30, 60))
            cv2.circle(image, (x, 120), radius, color, -1)
            cv2.circle(labels, (x, 120), radius, label, -1)
        cv2.imwrite(str(root / "discs" / "images" / f"d{number:02}.png"), image)
        cv2.imwrite(str(root / "discs" / "masks" / f"d{number:02}.png"), labels)
    return root


@pytest.fixture(scope="module")
def config(data, tmp_path_factory):
    config = VideoTrainConfig(
        name="test",
        data=data,
        sequences=4,
        steps=4,
        warmup=1,
        checkpoint_every=2,
        device="cpu",
        out=tmp_path_factory.mktemp("run"),
    )
    assert [done for done, _ in prepare_sequences(config)] == [4]
    (file,) = chunks(config.folder)
    write_chunk(file, [{name: array[0, :3] for name, array in read_chunk(file).items()}])  # faster
    return config


def test_sequences_are_a_function_of_seed_and_number(data):
    one, other = (SequenceSampler(data, seed=5).draw(2) for _ in range(2))
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.frames.shape == (5, *SIZE_HW, 3)
    assert set(np.unique(one.labels)) <= set(range(OBJECTS + 1))
    assert (one.labels[0] == 1).mean() >= 0.003
    assert (one.frames != SequenceSampler(data, seed=6).draw(2).frames).any()


@pytest.mark.skipif(
    not DATA.is_dir() and os.environ.get("CI") != "true",
    reason=f"the images are not at {DATA} (an error where CI=true)",
)
def test_sequences_are_rendered_from_the_data_of_the_project():
    sequence = SequenceSampler(DATA, seed=0).draw(0)
    assert (sequence.labels[0] > 0).any()


def test_cached_sequences_are_not_rendered_again(config):
    assert list(prepare_sequences(config)) == []
    (file,) = chunks(config.folder)
    arrays = read_chunk(file)
    assert arrays["labels"].shape == (1, 3, 144, 256)
    assert arrays["s8"].dtype == np.float16


def test_a_resumed_training_equals_an_uninterrupted_one(config, tmp_path):
    runs = []
    for name, stops in (("whole", [4]), ("resumed", [2, 4])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "chunk-000000.npz").symlink_to(chunks(config.folder)[0])
        for steps in stops:
            # the schedule is that of all steps; stopping early is what Ctrl-C does
            trainer = VideoTrainer(config.model_copy(update={"out": folder}))
            trainer.resume()
            while trainer.step < steps:
                trainer.train_step(trainer._batch())
                trainer.step += 1
            trainer.save()
        runs.append(trainer.average)
    for name, value in runs[0].items():
        torch.testing.assert_close(value, runs[1][name], msg=name)


def test_training_lowers_the_loss(config):
    trainer = VideoTrainer(config.model_copy(update={"lr": 3e-4}))  # from the first step on
    batch = trainer._batch()
    losses = [trainer.train_step(batch)["loss"] for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]


def test_a_network_without_the_neck_begins_where_it_was(config, tmp_path):
    """Weights from before the neck give the keys that they gave, and train on."""
    network = MemoryNetwork()
    old = {k: v for k, v in network.state_dict().items() if ".neck." not in k}
    torch.save(old, tmp_path / "old.pt")
    started = VideoTrainer(
        config.model_copy(
            update={"init_from": tmp_path / "old.pt", "name": "neck", "out": tmp_path}
        )
    ).network
    batch = to_batch(read_chunk(chunks(config.folder)[0]), torch.device("cpu"))
    maps = [batch[name].flatten(0, 1) for name in NAMES]
    keys = started.keys
    with torch.no_grad():
        found = keys(*maps)
        fine, coarse = (m / (m.square().sum(1, keepdim=True) + 1e-6).sqrt() for m in maps[1:4:2])
        coarse = torch.nn.functional.interpolate(
            keys.key_s16(coarse), scale_factor=2.0, mode="bilinear", align_corners=False
        )
    torch.testing.assert_close(found.key, keys.key_s8(fine) + coarse)
    assert torch.equal(keys.key_s8.weight, old["keys.key_s8.weight"])
    started.keys.neck.key.weight.data += 1
    assert not torch.allclose(started.keys(*maps).key, found.key)


def test_graphs_predict_what_the_network_does(config, tmp_path):
    torch.manual_seed(1)
    network = MemoryNetwork().eval()
    write_memory(network.state_dict(), tmp_path, CARD)
    network.load_state_dict({k: v.half().float() for k, v in network.state_dict().items()})
    arrays = read_chunk(chunks(config.folder)[0])
    batch = to_batch(arrays, torch.device("cpu"))
    masks = torch.nn.functional.avg_pool2d(batch["masks"][:1].flatten(1, 2), 2)
    masks = masks.reshape(3, OBJECTS, 72, 128)
    with torch.no_grad():
        frames = [network.keys(*(batch[n][:1, t] for n in NAMES)) for t in (0, 1)]
        kept = remember(
            network, frames[0], masks[:1], step=REFERENCE_CELLS.step, limit=REFERENCE_CELLS.cells
        )
        known = torch.ones(1, OBJECTS)
        logits, presence = predict(network, frames[1], kept, None, masks[:1], known)

    model = MemoryModel(tmp_path, threads=1)
    ours = [model.keys_of(FrameFeatures(*(batch[n][0, t].numpy() for n in NAMES))) for t in (0, 1)]
    bank = MemoryBank(MemorySettings())
    given = {i: masks[0, i].numpy() for i in range(OBJECTS)}
    bank.add_reference(model.remember(ours[0], given, REFERENCE_CELLS))
    found = model.predict(ours[1], bank, given)
    np.testing.assert_allclose(found.logits, joint_logits(logits[0].numpy()), atol=2e-3)
    np.testing.assert_allclose(found.presence, torch.sigmoid(presence[0]), atol=1e-3)


def test_an_int8_memory_passes_the_gate_or_leaves_the_graphs_as_they_were(config, tmp_path):
    torch.manual_seed(1)
    folder = tmp_path / "graphs"
    write_memory(MemoryNetwork().state_dict(), folder, CARD)
    arrays = read_chunk(chunks(config.folder)[0])
    sequence = {name: array[0] for name, array in arrays.items()}
    before = (folder / "head.xml").read_bytes()
    with pytest.raises(ModelError, match="INT8 memory is not accurate"):
        check_memory(MemoryComparison(mask_iou=0.9, presence=1.0))
    found = compare_memories(
        MemoryModel(folder, threads=1), MemoryModel(folder, threads=1), [sequence]
    )
    assert (found.mask_iou, found.presence) == (1.0, 1.0)
    try:
        write_int8(folder, [sequence], [sequence])
    except ModelError:
        assert (folder / "head.xml").read_bytes() == before
    else:
        assert "FakeQuantize" in (folder / "head.xml").read_text()
    MemoryModel(folder, threads=1)


def test_other_weights_are_refused(tmp_path):
    with pytest.raises(ModelError, match="not weights of the memory"):
        write_memory({"x": torch.zeros(1)}, tmp_path, CARD)


def test_wrong_configurations_and_no_data_are_sentences(tmp_path, config):
    file = tmp_path / "c.yaml"
    file.write_text("name: x\ndata: d\nsteps: 0\nstepz: 1\n")
    with pytest.raises(ConfigError, match=r"steps: .*stepz: no such key"):
        load_video_config(file)
    assert load_video_config(Path("configs/train/video/memory.yaml")).steps == 5000
    with pytest.raises(TrainingDataError, match="no sequences"):
        VideoTrainer(config.model_copy(update={"out": tmp_path / "empty"}))


def test_the_command_trains_resumes_and_writes_weights(config, data, tmp_path, cli):
    file = tmp_path / "memory.yaml"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "chunk-000000.npz").symlink_to(chunks(config.folder)[0])
    values = config.model_dump(mode="json") | {"out": str(tmp_path / "run")}
    file.write_text(json.dumps(values | {"steps": 2}))
    options = ("--weights", tmp_path / "w.pt", "--graphs", tmp_path / "graphs", "--fp32")
    code, _, err = cli("train-video", file, *options)
    assert code == 0, err
    weights = torch.load(tmp_path / "w.pt", weights_only=True)
    assert {v.dtype for v in weights.values()} == {torch.float16}
    MemoryModel(tmp_path / "graphs", threads=1)
    code, _, err = cli("train-video", file)
    assert code == 0, err
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2
