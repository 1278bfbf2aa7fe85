"""Live results as JSON messages: one table of objects a frame, masks as run lengths."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.types import Frame, FrameResult, LabelMap, ObjectResult


def result_message(frame: Frame, result: FrameResult) -> dict[str, Any]:
    """Convert a result to JSON values: times, and the id, box, score, … of each object.

    class, detector_score: "" and None where no detector has named the object.
    pts_s: the source's timestamp. captured_s: arrival of the frame by the capture clock (seconds
    since 1970). ntp_s: its capture by the sender's clock, if that states it. mask: the visible
    pixels as `mask_runs`; None if the mask is withheld.
    """
    height, width = result.labels.shape
    return {
        "type": "result",
        "frame": result.index,
        "pts_s": result.pts_s,
        "captured_s": None if frame.arrival is None else frame.arrival.unix_s,
        "ntp_s": None if frame.arrival is None else frame.arrival.ntp_s,
        "keyframe": result.keyframe,
        "size": [height, width],
        "objects": [
            {
                "id": found.id,
                "box_xyxy": [round(value, 1) for value in found.box_xyxy],
                "score": round(found.score, 3),
                "state": found.state.name,
                "class": found.label,
                "detector_score": _rounded(found.detector_score),
                "area": found.area,
                "mask": mask_runs(result.labels, found) if found.area else None,
            }
            for found in result.objects
        ],
    }


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 3)


def of_camera(camera: str, message: dict[str, Any]) -> dict[str, Any]:
    """A message with the name of its camera; unchanged for a single one, whose name is ""."""
    return message | {"camera": camera} if camera else message


def mask_runs(labels: LabelMap, found: ObjectResult) -> dict[str, Any]:
    """Encode an object's pixels as uncompressed COCO RLE: column-major, background runs first.

    Decoded by `pycocotools.mask.frPyObjects`, or by `mask_of_runs`.
    """
    height, width = labels.shape
    x0, y0, x1, y1 = (round(value) for value in found.box_xyxy)
    inside = (labels[max(0, y0) : y1, max(0, x0) : x1] == found.id).T.view(np.int8)
    edges = np.diff(inside, axis=1, prepend=0, append=0)
    column, row = np.nonzero(edges == 1)
    length = np.nonzero(edges == -1)[1] - row
    starts = (max(0, x0) + column) * height + max(0, y0) + row
    ends = starts + length
    counts = np.empty(2 * len(starts) + 1, np.int64)
    counts[0:-1:2] = starts - np.concatenate([[0], ends[:-1]])
    counts[1::2] = length
    counts[-1] = height * width - (ends[-1] if len(ends) else 0)
    return {"size": [height, width], "counts": counts.tolist()}


def mask_of_runs(runs: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Decode `mask_runs` to a mask, bool [H, W]."""
    height, width = runs["size"]
    values = np.arange(len(runs["counts"])) % 2 == 1
    return np.repeat(values, runs["counts"]).reshape(width, height).T


def captured_ns(frame: Frame) -> int:
    """Arrival of a frame by the capture clock, nanoseconds since 1970; 0 if it is not live."""
    return 0 if frame.arrival is None else 1000 * round(frame.arrival.unix_s * 1e6)


def jpeg(frame: Frame, long_side: int) -> bytes:
    """Encode a frame as JPEG with at most `long_side` pixels on its longer side."""
    height, width = frame.size_hw
    scale = min(1.0, long_side / max(height, width))
    rgb = frame.rgb((max(1, round(scale * height)), max(1, round(scale * width))))
    return bytes(cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1])
