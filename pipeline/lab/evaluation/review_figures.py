"""Measures whether masks in review items are worse than the rest (docs/measurements/tracking.md).

Run it as `python -m maskstream.pipeline.lab.evaluation.review_figures --images DIR --seeds 3,4`,
or with `--data DIR`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from maskstream.pipeline.config import load_config
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.lab.evaluation.video.clips import ClipEntry, SequenceTask, set_task
from maskstream.pipeline.lab.evaluation.video.evaluate import PromptKind, prompts_for
from maskstream.pipeline.lab.evaluation.video.folders import find_clips
from maskstream.pipeline.lab.evaluation.video.generated import generated_clips
from maskstream.pipeline.lab.evaluation.video.measures import region_similarity
from maskstream.pipeline.lab.evaluation.video.sprites import FolderImages
from maskstream.pipeline.results.review import Reviewer

BAD = 0.5
Key = tuple[int, int]  # frame, object


def follow(
    pipeline: Pipeline, task: SequenceTask, prompt: PromptKind
) -> tuple[dict[Key, float], Reviewer]:
    """J of every scored object and frame of a clip, and the reviewer of the run."""
    reviewer = Reviewer()
    found: dict[Key, float] = {}
    for result in pipeline.stream(task.clip.source, prompts_for(task, prompt)):
        reviewer.add(result)
        for number in task.scored.get(result.index, ()):
            truth, valid = task.truth(result.index)
            answer = (result.labels == number) & valid
            found[result.index, number] = region_similarity(answer, truth == number)
    return found, reviewer


def clips(options: argparse.Namespace) -> Iterator[ClipEntry]:
    """The clips to run."""
    if options.data is not None:
        yield from find_clips(options.data).clips
    if options.images is not None:
        for seed in map(int, options.seeds.split(",")):
            yield from generated_clips(FolderImages(options.images), seed=seed)


def main() -> None:
    """Print the figures of all clips together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--prompt", choices=["mask", "box", "click"], default="mask")
    options = parser.parse_args()
    pipeline = Pipeline(load_config(None, ["seeding.enabled=false"]))
    flagged: list[float] = []
    rest: list[float] = []
    worst: list[float] = []
    items = count = 0
    for entry in clips(options):
        found, reviewer = follow(pipeline, set_task(entry.name, entry.load()), options.prompt)
        spans: set[Key] = set()
        for item in reviewer.items():
            spans |= {(frame, item.object) for frame in range(item.first, item.last + 1)}
            worst += [found[key] for key in [(item.frame, item.object)] if key in found]
            items += 1
        for key, similarity in found.items():
            (flagged if key in spans else rest).append(similarity)
        count += 1
    inside, outside = np.array(flagged), np.array(rest)
    bad_inside, bad_outside = (inside < BAD).sum(), (outside < BAD).sum()
    print(  # noqa: T201
        f"clips {count}, review items {items}\n"
        f"object-frames in a review item: {len(inside) / (len(inside) + len(outside)):.1%}\n"
        f"mean J in review items {inside.mean():.3f}, on their worst frames {np.mean(worst):.3f}, "
        f"elsewhere {outside.mean():.3f}\n"
        f"J < {BAD} in review items {bad_inside / len(inside):.1%}, "
        f"elsewhere {bad_outside / len(outside):.1%}\n"
        f"of those with J < {BAD}, in a review item: {bad_inside / (bad_inside + bad_outside):.1%}"
    )


if __name__ == "__main__":
    main()
