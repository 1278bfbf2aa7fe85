"""AP, J and F, HOTA and switches are those of the official codes: pycocotools and TrackEval.

The DAVIS team's own package is not on PyPI; TrackEval's J and F are adapted from it.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.exports.coco import rle_of
from maskstream.pipeline.exports.coco_annotations import (
    CocoAnnotations,
    CocoCategory,
    CocoImage,
    CocoObject,
)
from maskstream.pipeline.lab.evaluation.coco import CocoItem
from maskstream.pipeline.lab.evaluation.mask_ap import average_precision
from maskstream.pipeline.lab.evaluation.video.clips import SequenceTask, set_task
from maskstream.pipeline.lab.evaluation.video.evaluate import follow, prompts_for
from maskstream.pipeline.lab.evaluation.video.folders import find_clips
from maskstream.pipeline.lab.evaluation.video.identities import (
    IdentityScores,
    overlap,
    score_identities,
)
from maskstream.pipeline.lab.evaluation.video.measures import (
    Statistics,
    boundary_accuracy,
    region_similarity,
    statistics,
)
from maskstream.pipeline.lab.evaluation.video.predictions import KeptLabels, score_objects

pytestmark = pytest.mark.filterwarnings(  # pycocotools 2.0.11 with NumPy 2
    "ignore:__array__ implementation:DeprecationWarning"
)
SIZE = (200, 300)
CLOSE = 0.001
DEV_VIDEOS = Path(__file__).parents[3] / "shared" / "data" / "dev_videos"
AP_FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def ellipse(rng, size_hw=SIZE, longest=70):
    """A turned ellipse somewhere on the image, bool [H, W]."""
    mask = np.zeros(size_hw, np.uint8)
    center = (int(rng.integers(20, size_hw[1] - 20)), int(rng.integers(20, size_hw[0] - 20)))
    axes = (int(rng.integers(4, longest)), int(rng.integers(4, longest)))
    cv2.ellipse(mask, center, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return mask > 0


def moved(mask, rng, most):
    """The mask some pixels away, grown or shrunk."""
    dy, dx = rng.integers(-most, most + 1, 2)
    shifted = np.roll(mask, (dy, dx), (0, 1)).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    change = cv2.dilate if rng.random() < 0.5 else cv2.erode
    return change(shifted, kernel, iterations=int(rng.integers(0, 3))) > 0


def made_set():
    """15 images, 3 categories, crowds; results that are near, elsewhere, doubled, or missing."""
    rng = np.random.default_rng(4)
    objects: list[CocoObject] = []
    results = []
    for image in range(1, 16):
        for _ in range(int(rng.integers(0, 9))):
            mask, category = ellipse(rng), int(rng.integers(1, 4))
            crowd = int(rng.random() < 0.1)
            area = float(mask.sum())
            segmentation = rle_of(mask)
            number = len(objects)  # the first is 0, as in exports of Roboflow
            objects.append(CocoObject(number, image, category, segmentation, crowd, area))
            for _ in range(int(rng.integers(0, 3))):
                found = moved(mask, rng, 4)
                said = category if rng.random() < 0.9 else 1 + category % 3
                results.append((image, said, found, float(rng.uniform(0.3, 1))))
        for _ in range(2):
            category = int(rng.integers(1, 4))
            results.append((image, category, ellipse(rng), float(rng.uniform(0, 0.7))))
    images = tuple(CocoImage(i, *SIZE, f"{i}.png") for i in range(1, 16))
    by_image = {i.id: tuple(o for o in objects if o.image_id == i.id) for i in images}
    annotations = CocoAnnotations(images, by_image, tuple(CocoCategory(c) for c in (1, 2, 3)))
    return annotations, [
        {"image_id": i, "category_id": c, "segmentation": rle_of(m), "score": s}
        for i, c, m, s in results
    ]


def test_mask_ap_is_that_of_pycocotools(capsys):
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    annotations, results = made_set()
    items = [
        CocoItem(Path(image.file_name), image, tuple(annotations.masked_objects(image)))
        for image in annotations.images
    ]
    ours = average_precision(annotations, items, results)

    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": i.id, "height": i.height, "width": i.width} for i in annotations.images],
        "annotations": [
            {
                "id": o.id + 1,  # pycocotools takes an object of number 0 for none
                "image_id": o.image_id,
                "category_id": o.category_id,
                "segmentation": o.segmentation,
                "area": o.area,
                "iscrowd": o.iscrowd,
            }
            for found in annotations.objects.values()
            for o in found
        ],
        "categories": [{"id": c.id, "name": str(c.id)} for c in annotations.categories],
        "info": {},
    }
    truth.createIndex()
    official = evaluation.COCOeval(truth, truth.loadRes(results), "segm")
    official.evaluate()
    official.accumulate()
    official.summarize()
    capsys.readouterr()
    theirs = dict(zip(AP_FIGURES, official.stats[:6].tolist(), strict=True))
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert 0.2 < ours["ap"] < 0.9
    assert {o.iscrowd for found in annotations.objects.values() for o in found} == {0, 1}


def official_j_and_f(answers: Sequence[np.ndarray], truth: Sequence[np.ndarray]):
    """TrackEval's J and F of one object over successive masks."""
    metrics = pytest.importorskip("trackeval.metrics")
    pytest.importorskip("skimage")
    ids = [np.zeros(1, int)] * len(truth)
    data = {"num_timesteps": len(truth), "num_tracker_ids": 1, "num_gt_ids": 1}
    data |= {"gt_ids": ids, "tracker_ids": ids}
    data |= {"gt_dets": [[rle_of(m)] for m in truth]}
    data |= {"tracker_dets": [[rle_of(m)] for m in answers]}
    found = metrics.JAndF().eval_sequence(data)
    return tuple(
        Statistics(found[f"{name}-Mean"], found[f"{name}-Recall"], found[f"{name}-Decay"])
        for name in "JF"
    )


def largest_difference(ours: Sequence[Statistics], theirs: Sequence[Statistics]) -> float:
    return max(
        abs(getattr(a, part) - getattr(b, part))
        for a, b in zip(ours, theirs, strict=True)
        for part in ("mean", "recall", "decay")
    )


@pytest.mark.parametrize("seed", range(4))
def test_j_and_f_are_those_of_trackeval(seed):
    rng = np.random.default_rng(seed)
    mask = ellipse(rng, longest=40)
    truth, answers = [], []
    for frame in range(18):
        mask = np.roll(mask, rng.integers(-9, 10, 2), (0, 1))
        seen = mask if frame not in (5, 6) else np.zeros_like(mask)
        truth.append(seen)
        missing = frame in (6, 9)
        answers.append(np.zeros_like(mask) if missing else moved(seen, rng, frame // 2))
    ours = tuple(
        statistics([measure(a, t) for a, t in zip(answers, truth, strict=True)])
        for measure in (region_similarity, boundary_accuracy)
    )
    assert largest_difference(ours, official_j_and_f(answers, truth)) < 1e-9
    assert 0.1 < ours[0].mean < 0.95


@pytest.mark.slow
@pytest.mark.skipif(not DEV_VIDEOS.is_dir(), reason="there is no ../shared/data/dev_videos")
@pytest.mark.parametrize("name", ["aeroplane_001", "dogs-jump", "girl", "segtrack-bmx", "tennis"])
def test_j_and_f_of_dev_videos_are_those_of_trackeval(name, capsys):
    """`pytest -m slow -k dev_videos` prints both figures of every object."""
    (entry,) = [clip for clip in find_clips(DEV_VIDEOS).clips if clip.name == name]
    task = set_task(name, entry.load())
    config = load_config(overrides=["seeding.enabled=false"])
    answers = follow(Pipeline(config), name, task, prompts_for(task, "mask"), task.scored.keys())
    ours = score_objects(task, answers.labels)
    for number in task.objects:
        masks = masks_of(task, answers.labels, number)
        theirs = official_j_and_f(*masks)
        mine = (ours[number].j, ours[number].f)
        off = largest_difference(mine, theirs)
        with capsys.disabled():
            pairs = " ".join(
                f"{a.mean:.4f} {b.mean:.4f}" for a, b in zip(mine, theirs, strict=True)
            )
            sys.stdout.write(f"{name} {number}: J, F here, there {pairs}; most off {off:.0e}\n")
        assert off < CLOSE


def masks_of(task: SequenceTask, labels: KeptLabels, number: int):
    """The predicted and the true masks of an object on its scored frames."""
    frames = [frame for frame, ids in task.scored.items() if number in ids]
    answers, truth = [], []
    for frame in frames:
        wanted, valid = task.truth(frame)
        answers.append(np.where(valid, labels.at(frame), 0) == number)
        truth.append(wanted == number)
    return answers, truth


def made_tracks(seed: int):
    """Label maps of 30 frames, true and predicted: noise, swaps, new ids, gaps, false objects."""
    rng = np.random.default_rng(seed)
    places = rng.integers(20, 160, (5, 2))
    named = {i: i for i in range(1, 6)}
    truth, answers = [], []
    for frame in range(30):
        true, answer = np.zeros((2, *SIZE), np.uint16)
        places = np.clip(places + rng.integers(-6, 7, places.shape), 0, 160)
        if frame % 10 == 7:
            first, second = rng.permutation(5)[:2] + 1
            named[first], named[second] = named[second], named[first]
        if frame % 11 == 5:
            named[int(rng.integers(1, 6))] = 20 + frame
        for number, (y, x) in enumerate(places, start=1):
            if rng.random() < 0.9:
                true[y : y + 30, x : x + 40] = number
            if rng.random() < 0.85:
                dy, dx = np.clip([y, x] + rng.integers(-9, 10, 2), 0, 160)
                answer[dy : dy + 30, dx : dx + 40] = named[number]
        if rng.random() < 0.3:
            answer[180:195, 200:240] = 60 + frame % 3
        truth.append(true)
        answers.append(answer)
    return answers, truth


def mots_lines(frames: Sequence[np.ndarray]) -> str:
    """Label maps as MOTS text, all of class 2: its pedestrian."""
    return "".join(
        f"{number} {i} 2 {SIZE[0]} {SIZE[1]} {rle_of(labels == i)['counts']}\n"
        for number, labels in enumerate(frames, start=1)
        for i in np.unique(labels[labels > 0])
    )


def official_mots(root: Path, answers: str, truth: str, frames: int) -> Mapping[str, float]:
    """HOTA, DetA, AssA and switches of MOTS text by TrackEval's own reader and metrics."""
    trackeval = pytest.importorskip("trackeval")
    for place, text in (("gt/clip/gt/gt.txt", truth), ("trackers/ours/data/clip.txt", answers)):
        file = root / place
        file.parent.mkdir(parents=True)
        file.write_text(text)
    dataset = trackeval.datasets.MOTSChallenge(
        {
            "GT_FOLDER": str(root / "gt"),
            "TRACKERS_FOLDER": str(root / "trackers"),
            "SEQ_INFO": {"clip": frames},
            "SKIP_SPLIT_FOL": True,
            "PRINT_CONFIG": False,
        }
    )
    data = dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data("ours", "clip"), "pedestrian")
    hota = trackeval.metrics.HOTA().eval_sequence(data)
    clear = trackeval.metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    return {name: float(np.mean(hota[name])) for name in ("HOTA", "DetA", "AssA")} | {
        "IDSW": clear["IDSW"]
    }


@pytest.mark.parametrize("seed", range(3))
def test_hota_and_switches_are_those_of_trackeval_on_mots(tmp_path, seed):
    answers, truth = made_tracks(seed)
    found: IdentityScores = score_identities(
        [overlap(a, t) for a, t in zip(answers, truth, strict=True)]
    )
    theirs = official_mots(tmp_path, mots_lines(answers), mots_lines(truth), len(truth))
    ours = {"HOTA": found.hota, "DetA": found.detection, "AssA": found.association}
    assert ours | {"IDSW": found.switches} == pytest.approx(theirs, abs=1e-9)
    assert 0.2 < found.hota < 0.9
    assert found.switches > 0
