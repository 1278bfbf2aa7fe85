"""Track what your detector found: its boxes are prompts on their frames.

    python examples/detector_boxes.py clip.mp4 boxes.csv

A line of boxes.csv is frame,object,x0,y0,x1,y1 in pixels. The object's number is yours: a line with
a new one begins an object, a later line of it corrects its mask. Every frame with a box is encoded,
so a box now and then costs less than one on every frame.
"""

import csv
import sys

import maskstream


def main(video: str, boxes: str) -> None:
    """Print every object's box, frame by frame."""
    with open(boxes, newline="") as file:
        events = [
            {"frame": frame, "type": "box", "object": number, "xyxy": xyxy}
            for frame, number, *xyxy in csv.reader(file)
        ]
    prompts = maskstream.PromptLog.model_validate({"version": 1, "events": events})
    # Only what the detector found; leave this out to let the pipeline find more.
    pipeline = maskstream.Pipeline.from_config(overrides=["seeding.enabled=false"])
    for result in pipeline.stream(maskstream.open_source(video), prompts):
        for found in result.objects:
            box = " ".join(f"{edge:.0f}" for edge in found.box_xyxy)
            print(result.index, found.id, found.state.name, f"{found.score:.2f}", box)


if __name__ == "__main__":
    main(*sys.argv[1:])
