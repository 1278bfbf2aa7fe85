"""The learned memory: its bank is bounded, cells are chosen, graphs equal the network."""

import numpy as np
import pytest

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.memory.bank import (
    RECENT_CELLS,
    REFERENCE_CELLS,
    MemoryBank,
    MemorySettings,
    RememberedFrame,
    group,
)
from maskstream.pipeline.memory.card import read_memory_card
from maskstream.pipeline.memory.cells import choose_cells
from maskstream.pipeline.memory.features import FrameFeatures
from maskstream.pipeline.memory.model import MemoryModel, joint_logits
from maskstream.pipeline.models.find import MEMORY, content_hash, find_model
from maskstream.pipeline.segmenter.model import OpenVinoSegmenter

SIZE_HW = (288, 512)


def remembered(*ids, cells=5):
    zeros = np.zeros((cells, 2), np.float32)
    return RememberedFrame(
        zeros,
        zeros,
        np.zeros(cells, np.float32),
        {i: np.full((cells, 3), i, np.float32) for i in ids},
    )


def test_each_object_keeps_its_newest_references_whatever_others_get():
    bank = MemoryBank(MemorySettings(references=2))
    bank.add_reference(remembered(1))
    for _ in range(5):
        bank.add_reference(remembered(2))
    assert (1 in bank, 2 in bank, 3 in bank) == (True, True, False)
    assert [len(bank.frames_of(i)[0]) for i in (1, 2)] == [1, 2]
    assert len(bank.references) == 3


def test_recent_frames_are_bounded_and_not_close_in_time():
    bank = MemoryBank(MemorySettings(recent=2, recent_interval_s=0.1))
    added = 0
    for frame in range(10):
        now_s = frame / 25
        if bank.wants_recent(now_s):
            bank.add_recent(remembered(1), now_s)
            added += 1
    assert (added, len(bank.recent)) == (4, 2)
    assert not MemoryBank(MemorySettings(recent=0)).wants_recent(9.0)


def test_objects_that_are_not_kept_are_forgotten():
    bank = MemoryBank(MemorySettings())
    bank.add_reference(remembered(1, 2))
    bank.add_recent(remembered(2), 0.0)
    bank.keep_only([1])
    assert (1 in bank, 2 in bank, len(bank.recent)) == (True, False, 0)
    bank.keep_only([])
    assert bank.references == []


def test_an_object_reads_only_frames_that_know_it():
    """A frame from before an object was prompted would say that it is not there."""
    bank = MemoryBank(MemorySettings())
    bank.add_reference(remembered(1))
    bank.add_reference(remembered(2))
    bank.add_recent(remembered(1), 0.0)
    assert bank.frames_of(1)[0] != bank.frames_of(2)[0]
    assert bank.frames_of(2)[1] == ()


def test_cells_of_a_group_are_padded_without_weight():
    cells = group([remembered(1, 2), remembered(1, 2)], [2, 1])
    assert cells.keys.shape == (1, 128, 2)
    assert cells.values.shape == (1, 128, 2 + 3 + 3)
    np.testing.assert_array_equal(cells.values[0, 0, 2:], [2, 2, 2, 1, 1, 1])
    assert (cells.bias[0, 10:] < -1000).all()


def test_cells_stand_for_all_cells_and_are_dense_at_borders():
    coverage = np.zeros((36, 64), np.float32)
    coverage[10:20, 20:40] = 1
    cells, weights = choose_cells(coverage, 4, 10_000)
    assert weights.sum() == pytest.approx(coverage.size, rel=0.1)
    border = np.zeros_like(coverage, np.bool_)
    border[9:11, 20:40] = True
    assert set(np.flatnonzero(border)) <= set(cells)
    few, _ = choose_cells(coverage, 4, 50)
    assert len(few) == 50


def test_joint_logits_are_each_object_against_all_others_and_the_background():
    logits = np.array([2.0, -1.0, 0.5], np.float32).reshape(3, 1, 1)
    p = 1 / (1 + np.exp(-logits))
    odds = np.concatenate([np.prod(1 - p, 0, keepdims=True), p])
    odds = odds / (1 - odds)
    share = odds[1:] / odds.sum(0)
    np.testing.assert_allclose(joint_logits(logits), np.log(share / (1 - share)), rtol=1e-4)


@pytest.fixture(scope="module")
def features():
    segmenter = OpenVinoSegmenter(find_model("lite"), SIZE_HW, threads=1)
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    image = np.random.default_rng(0).integers(90, 120, (*SIZE_HW, 3)).astype(np.uint8)
    image[(x - 160) ** 2 + (y - 140) ** 2 < 60**2] = (220, 40, 30)
    return FrameFeatures.of(segmenter.encode_rgb(image).tensors)


def disc():
    y, x = np.mgrid[:72, :128]
    return ((x - 40) ** 2 + (y - 35) ** 2 < 15**2).astype(np.float32)


def test_the_embedded_memory_was_made_for_the_embedded_encoder():
    card = read_memory_card(MEMORY)
    assert content_hash(find_model(card.encoder)) == card.encoder_hash


def test_an_object_is_recognized_on_the_frame_it_was_given_on(features):
    model = MemoryModel(MEMORY, threads=1)
    frame = model.keys_of(features)
    bank = MemoryBank(MemorySettings())
    bank.add_reference(model.remember(frame, {7: disc()}, REFERENCE_CELLS))
    bank.add_recent(model.remember(frame, {7: disc()}, RECENT_CELLS), 0.0)
    predicted = model.predict(frame, bank, {7: None})
    found, truth = predicted.logits[0] > 0, disc() > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.85
    assert predicted.presence[0] > 0.9


def test_objects_with_different_references_are_predicted_as_one_by_one(features):
    """Grouping by remembered frames changes nothing but the softmax over all objects."""
    model = MemoryModel(MEMORY, threads=1)
    frame = model.keys_of(features)
    bank = MemoryBank(MemorySettings())
    other = np.zeros((72, 128), np.float32)
    other[50:60, 90:110] = 1
    bank.add_reference(model.remember(frame, {1: disc()}, REFERENCE_CELLS))
    bank.add_reference(model.remember(frame, {2: other}, REFERENCE_CELLS))
    both = model.predict(frame, bank, {1: None, 2: None})
    for n, object_id in enumerate((1, 2)):
        alone = model.predict(frame, bank, {object_id: None})
        assert both.presence[n] == pytest.approx(alone.presence[0], abs=1e-4)
    assert not ((both.logits[0] > 0) & (both.logits[1] > 0)).any()


def test_a_folder_without_a_card_is_a_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"memory\.yaml"):
        read_memory_card(tmp_path)
    with pytest.raises(ModelError, match="OpenVINO cannot load the memory"):
        MemoryModel(tmp_path, threads=1)
