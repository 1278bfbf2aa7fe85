"""`bench corrections`: its figures on cases whose answers are known, and its goals."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.lab.bench.correction_cases import (
    IOU_RANGE,
    CorrectionCase,
    image_cases,
    video_cases,
)
from maskstream.pipeline.lab.bench.corrections import METHODS, bench_corrections
from maskstream.pipeline.lab.evaluation.labelmaps import find_label_maps
from maskstream.pipeline.lab.evaluation.video.clips import ArrayTruth, Clip, ClipEntry
from maskstream.pipeline.models.pool import SegmenterPool, segmenter_opener
from maskstream.pipeline.sources import ArraySource
from maskstream.trackers.iou import mask_iou
from tests.support.media import moving_shapes

SIZE_HW = (120, 176)


@pytest.fixture(scope="module")
def pool() -> SegmenterPool:
    return SegmenterPool(segmenter_opener(PipelineConfig()))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A source of annotated images: two shapes each, some of which touch."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("images", "masks"):
        (root / "shapes" / kind).mkdir(parents=True)
    for seed in range(12):
        frames, masks = moving_shapes(6, SIZE_HW, shapes=2, seed=seed)
        cv2.imwrite(str(root / "shapes" / "images" / f"{seed}.png"), frames[5][..., ::-1])
        cv2.imwrite(str(root / "shapes" / "masks" / f"{seed}.png"), masks[5].astype(np.uint8))
    return root


def test_image_cases_are_wrong_to_a_degree_and_the_same_every_time(pool, data):
    first, second = (list(image_cases(pool.for_size, find_label_maps(data))) for _ in range(2))
    assert len(first) > 5
    assert len({case.error for case in first}) > 2
    for case, again in zip(first, second, strict=True):
        assert IOU_RANGE[0] <= mask_iou(case.mask, case.truth) <= IOU_RANGE[1]
        assert (case.mask == again.mask).all()


def test_video_cases_are_tracked_masks_that_are_wrong():
    frames, masks = moving_shapes(12, SIZE_HW, shapes=1, seed=2)
    masks[6:] = np.roll(masks[6:], 15, axis=2)  # the truth moves away from what is tracked
    clip = Clip(ArraySource(frames), ArrayTruth(masks))
    cases = list(video_cases(PipelineConfig(), [ClipEntry("moved", lambda: clip)]))
    assert cases
    for case in cases:
        assert (case.kind, case.scene, case.error) == ("videos", "moved/1", "tracked")
        assert IOU_RANGE[0] <= mask_iou(case.mask, case.truth) <= IOU_RANGE[1]


def test_without_cases_there_is_nothing_to_measure(pool):
    with pytest.raises(SourceError, match="no tracked mask"):
        bench_corrections("lite", pool.for_size, [])


def shapes_case(kind, seed: int) -> CorrectionCase:
    frames, masks = moving_shapes(6, SIZE_HW, shapes=2, seed=seed)
    truth = masks[5] == 1
    lost = truth.copy()
    lost[:, : int(np.nonzero(truth)[1].mean())] = False
    return CorrectionCase(kind, f"shapes/{seed}", "lost", frames[5], truth, truth & ~lost)


def test_the_report_has_every_kind_and_method_with_intervals(pool):
    cases = [shapes_case(kind, seed) for kind in ("videos", "images") for seed in range(3)]
    report = bench_corrections("lite", pool.for_size, cases, max_clicks=2).to_json()
    assert json.loads(json.dumps(report)) == report
    assert list(report["kinds"]) == ["videos", "images"]
    for kind in report["kinds"].values():
        assert (kind["cases"], kind["scenes"]) == (3, 3)
        assert list(kind["methods"]) == list(METHODS)
        for figures in kind["methods"].values():
            assert all(s["low"] <= s["mean"] <= s["high"] for s in figures.values())
            assert 1 <= figures["noc"]["mean"] <= 2


@pytest.mark.slow
def test_one_click_raises_most_masks_and_lowers_few(pool, data):
    cases = list(image_cases(pool.for_size, find_label_maps(data)))
    report = bench_corrections("lite", pool.for_size, cases, max_clicks=5)
    assert report.reached
    local, decoder = (report.kinds["images"].methods[name] for name in ("local", "decoder"))
    assert local.lowered.mean <= decoder.lowered.mean
