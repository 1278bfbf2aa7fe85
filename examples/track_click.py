"""Track the object under a click, into a mask store and a video to look at.

    python examples/track_click.py clip.mp4 320 200 clip.zarr

The click is x, y in pixels of the first frame. Beside clip.zarr it writes clip_overlay.mp4.
"""

import sys
from pathlib import Path

import maskstream
from maskstream.pipeline.runs.outputs import RunOutputs


def main(video: str, x: str, y: str, store: str) -> None:
    """Track one object from frame 0 to the end."""
    click = {"frame": 0, "type": "point", "object": 1, "xy": [float(x), float(y)], "label": 1}
    prompts = maskstream.PromptLog.model_validate({"version": 1, "events": [click]})
    pipeline = maskstream.Pipeline.from_config(overrides=["seeding.enabled=false"])
    place = Path(store)
    outputs = RunOutputs(place, place.with_name(f"{place.stem}_overlay.mp4"), prompts=prompts)
    summary = pipeline.run(
        maskstream.open_source(video), lambda info: outputs.open(pipeline, info), prompts
    )
    print(f"{summary.frames} frames, {summary.fps:.1f} a second")
    with maskstream.MaskStore(store) as masks:
        for seen in masks.objects():
            print(f"object {seen.id}: on {seen.frames_seen} frames, score {seen.mean_score:.2f}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except maskstream.MaskstreamError as error:  # its sentence says what to do
        sys.exit(f"error: {error}")
