"""`eval video --ablate`: the learned memory without one of its parts."""

import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.lab.evaluation.video.ablation import AblatedMemory
from maskstream.pipeline.lab.evaluation.video.clips import ArrayTruth, Clip, ClipEntry
from maskstream.pipeline.lab.evaluation.video.evaluate import evaluate_videos
from maskstream.pipeline.memory.bank import REFERENCE_CELLS, MemoryBank, MemorySettings
from maskstream.pipeline.memory.features import FrameFeatures
from maskstream.pipeline.models.find import MEMORY
from maskstream.pipeline.sources import ArraySource
from tests.support.media import moving_shapes

GRID_HW = (12, 20)  # cells of stride 8


@pytest.fixture(scope="module")
def seen():
    """A function: two objects as a memory predicts them on the frame that it remembers."""
    rng = np.random.default_rng(0)
    h, w = GRID_HW
    shapes = ((16, 2 * h, 2 * w), (40, h, w), (32, h, w), (112, h // 2, w // 2))
    maps = [rng.normal(size=s).astype(np.float32) for s in (*shapes, (128, h // 2, w // 2))]
    masks = {i: np.zeros((2 * h, 2 * w), np.float32) for i in (1, 2)}
    masks[1][4:12, 4:16] = masks[2][10:20, 20:34] = 1

    def predict(*without, ids=(1, 2)):
        model = AblatedMemory(MEMORY, without, threads=1)
        frame = model.keys_of(FrameFeatures(*maps))
        bank = MemoryBank(MemorySettings())
        bank.add_reference(model.remember(frame, masks, REFERENCE_CELLS))
        bank.add_recent(model.remember(frame, masks, REFERENCE_CELLS), 0.0)
        return model.predict(frame, bank, {i: masks[i] for i in ids})

    return predict


def test_without_the_head_masks_are_what_cells_attend_to(seen):
    found = seen("head")
    assert found.presence.shape == (2,)
    assert (found.presence > 0.5).all()
    inside = found.logits > 0  # random cells find themselves
    assert inside[0, 6:10, 6:14].all()
    assert inside[1, 12:18, 24:30].all()
    assert not inside[0, 12:, 20:].any()


def test_without_joint_prediction_others_change_nothing(seen):
    alone = seen("joint", ids=(1,)).logits[0]
    np.testing.assert_array_equal(seen("joint").logits[0], alone)
    assert np.abs(seen().logits[0] - seen(ids=(1,)).logits[0]).max() > 1e-3


@pytest.mark.parametrize("part", ["recent", "propagated"])
def test_what_is_left_out_is_no_input(part, seen):
    assert np.abs(seen(part).logits - seen().logits).max() > 1e-3


def test_a_clip_is_evaluated_without_a_part():
    frames, masks = moving_shapes(6, (96, 160), shapes=2, seed=3)
    entry = ClipEntry("shapes", lambda: Clip(ArraySource(list(frames)), ArrayTruth(masks)))
    config = PipelineConfig()
    whole, without = (
        evaluate_videos(config, [entry], baselines={}, ablate=ablate).sequences[0].ours.jf
        for ablate in ((), ("head", "recent"))
    )
    assert without < whole
