"""Real clips with hand-checked masks (tests/real_masks/README.md): what is followed, what is found.

A few of the 18, with room below what they reach; `eval video --masks` judges them all.
"""

import os
from pathlib import Path

import pytest

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.lab.evaluation.video.baselines import BASELINES
from maskstream.pipeline.lab.evaluation.video.evaluate import evaluate_videos
from maskstream.pipeline.lab.evaluation.video.folders import choose_clips, find_clips

VIDEOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "videos"
MASKS = Path(__file__).parents[1] / "real_masks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not VIDEOS.is_dir() and os.environ.get("CI") != "true",
        reason=f"the videos are not at {VIDEOS} (an error where CI=true)",
    ),
]


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("06_pingpong", 0.75),  # a person who bends and turns
        ("08_driving", 0.64),  # three small cars alike; another like them comes in
        ("13_butterfly", 0.75),  # a chrysalis that becomes a butterfly
    ],
)
def test_objects_of_real_clips_are_followed(name, least):
    clips = choose_clips(find_clips(VIDEOS, MASKS).clips, [name])
    report = evaluate_videos(PipelineConfig(), clips, baselines={"affinity": BASELINES["affinity"]})
    assert report.overall.jf > least
    assert report.overall.jf > report.baselines["affinity"].jf + 0.03


def test_every_mask_belongs_to_a_frame_of_a_clip():
    names = {clip.name for clip in find_clips(VIDEOS, MASKS).clips}
    assert {folder.name for folder in MASKS.iterdir() if folder.is_dir()} <= names
