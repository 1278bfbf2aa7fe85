"""Find and track objects in every video of a folder; run it again and it goes on where it was.

    python examples/many_videos.py videos/ stores/

One pipeline serves all videos. What cannot be read is reported, and the others are done.
"""

import sys
from pathlib import Path

import maskstream
from maskstream.pipeline.runs.outputs import RunOutputs

SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi"}


def main(videos: str, stores: str) -> None:
    """Write stores/NAME.zarr for every videos/NAME.mp4, and what a person should check."""
    Path(stores).mkdir(parents=True, exist_ok=True)
    pipeline = maskstream.Pipeline.from_config()
    for video in sorted(p for p in Path(videos).iterdir() if p.suffix.lower() in SUFFIXES):
        outputs = RunOutputs(Path(stores) / f"{video.stem}.zarr", mode="resume")
        try:
            if outputs.finished(pipeline, str(video)) is None:
                source = maskstream.open_source(video)
                pipeline.run(source, lambda info, to=outputs: to.open(pipeline, info))
            masks = maskstream.MaskStore(outputs.store)
        except maskstream.MaskstreamError as error:
            print(f"{video.name}: {error}", file=sys.stderr)
            continue
        print(f"{video.name}: {len(masks.objects())} objects, {len(masks.review or ())} to check")


if __name__ == "__main__":
    main(*sys.argv[1:])
