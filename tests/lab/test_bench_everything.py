"""`bench everything`: both grids in turns on pictures of discs whose answers are known."""

from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest

from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.lab.bench.everything import EverythingReport, GridFigures, bench_everything
from maskstream.pipeline.lab.evaluation.examples import Example, ImageSet
from maskstream.pipeline.segmenter.everything import TINYSAM, EverythingChoice
from maskstream.pipeline.segmenter.model import Features, ModelCard
from tests.segmenter.test_everything import DISCS, GEOMETRY, DiscSegmenter

CARD = ModelCard(name="tinysam", long_side=512, multiple=32, pad_rgb=(0, 0, 0), method="none")


@dataclass
class Discs(DiscSegmenter):
    """Answers every picture with `DISCS`."""

    card: ModelCard = CARD
    encoded: list[int] = field(default_factory=list)

    def encode(self, frame):
        self.encoded.append(len(self.asked))
        return Features({})


class Pool:
    def __init__(self) -> None:
        self.segmenter = Discs(DISCS)

    def for_size(self, frame_hw):
        assert frame_hw == GEOMETRY.frame_hw
        return self.segmenter


@dataclass
class Image:
    """A picture with the discs in view, and one square that nothing answers."""

    objects: int

    def load(self) -> Example:
        rows, columns = np.mgrid[: GEOMETRY.frame_hw[0], : GEOMETRY.frame_hw[1]] + 0.5
        masks = [np.hypot(columns - x, rows - y) < r for x, y, r in DISCS]
        masks.append((abs(columns - 200) < 20) & (abs(rows - 220) < 20))
        shown = np.stack(masks)[len(masks) - self.objects :]
        return Example(np.zeros((*GEOMETRY.frame_hw, 3), np.uint8), shown)


def images(*objects: int) -> ImageSet:
    return ImageSet("discs", tuple(Image(n) for n in objects))


def test_both_grids_are_judged_on_every_image_with_objects_in_turns():
    pool, ticks, told = Pool(), count(), []
    report = bench_everything(
        pool,
        [images(4, 0, 2)],
        EverythingChoice(),
        on_image=told.append,
        clock=lambda: float(next(ticks)),
    )
    assert told == ["discs"] * 3
    assert (report.images, report.objects, report.model) == (2, 6, "tinysam")
    assert report.settings == TINYSAM
    assert report.plain == GridFigures(prompts=2048, masks=6, seconds=2.0, recall=round(4 / 6, 4))
    assert report.hierarchical.recall == report.plain.recall
    assert report.hierarchical.prompts < 2048
    starts = pool.segmenter.encoded  # of warming up, the first and the second grid, by picture
    first, second = starts[2] - starts[1], starts[5] - starts[4]
    assert {first, second} == {1024, report.hierarchical.prompts // 2}


@pytest.mark.parametrize(
    ("seconds", "recall", "plain", "reached"),
    [
        (5.0, 0.60, 0.60, True),
        (5.0, 0.59, 0.60, True),
        (5.0, 0.58, 0.60, False),
        (6.0, 0.60, 0.60, False),
        (5.0, 0.0, 0.0, False),
    ],
)
def test_the_goals_are_speed_and_recall_together(seconds, recall, plain, reached):
    report = EverythingReport(
        "m",
        TINYSAM,
        1,
        100,
        hierarchical=GridFigures(500, 9, seconds, recall),
        plain=GridFigures(1024, 9, 10.0, plain),
    )
    assert report.reached is reached
    assert report.to_json()["times_faster"] == pytest.approx(10 / seconds, abs=1e-3)


def test_images_without_objects_are_an_error():
    with pytest.raises(SourceError, match="none of the images"):
        bench_everything(Pool(), [images(0)], EverythingChoice())
