"""Exporters for annotation tools: LabelMe (JSON per frame) and CVAT (XML per video)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from maskstream.pipeline.exports.frames import ExportFrame, Mask, box_xywh
from maskstream.pipeline.exports.job import ExportJob
from maskstream.pipeline.exports.names import object_names
from maskstream.pipeline.exports.png import encode_png
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.iou import mask_iou

_LABELME_VERSION = "5.2.1"  # the first with mask shapes


class LabelMe:
    """Writes `NAME.json` per frame with shapes of type "mask"; `group_id` is the object id."""

    def __init__(self, job: ExportJob) -> None:
        job.names.require("frame")
        self._job = job

    def write(self, frame: ExportFrame) -> None:
        """Write the frame's file. Raises `OSError`."""
        height, width = self._job.source.size_hw
        name = self._job.names.of(frame.number)
        values: JsonObject = {
            "version": _LABELME_VERSION,
            "flags": {},
            "shapes": [
                _shape(mask) | {"label": chosen.category, "group_id": chosen.id}
                for chosen, mask in frame.masks()
            ],
            "imagePath": PurePosixPath(self._job.image_of(frame.number)).name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        self._job.output.put(f"{name}.json", json.dumps(values, indent=1).encode())

    def finish(self) -> None:
        """Nothing to do."""

    def check(self, frame: ExportFrame) -> float:
        """The lowest IoU of a shape and its object."""
        file = self._job.output.path / f"{self._job.names.of(frame.number)}.json"
        try:
            shapes = {s["group_id"]: s for s in json.loads(file.read_bytes())["shapes"]}
            ious = [
                mask_iou(labelme_mask(shapes.pop(chosen.id), mask.shape), mask, empty=1.0)
                for chosen, mask in frame.masks()
            ]
        except (OSError, ValueError, KeyError, TypeError, cv2.error):
            return 0.0
        return 0.0 if shapes else min(ious, default=1.0)

    def close(self) -> None:
        """Nothing to do."""


def _shape(mask: Mask) -> JsonObject:
    left, top, width, height = box_xywh(mask)
    window = mask[top : top + height, left : left + width].astype(np.uint8)
    return {
        "shape_type": "mask",
        "points": [[left, top], [left + width - 1, top + height - 1]],
        "mask": base64.b64encode(encode_png(window)).decode("ascii"),
        "description": "",
        "flags": {},
    }


def labelme_mask(shape: Mapping[str, Any], size_hw: SizeHW) -> Mask:
    """Decode a shape of type "mask". Raises `KeyError`, `ValueError`, `cv2.error`."""
    (x0, y0), (x1, y1) = shape["points"]
    encoded = np.frombuffer(base64.b64decode(shape["mask"]), np.uint8)
    mask = np.zeros(size_hw, np.bool_)
    mask[y0 : y1 + 1, x0 : x1 + 1] = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)) > 0
    return mask


class Cvat:
    """Writes CVAT for video 1.1: a track per object and frame, with the object id as group.

    CVAT has no tracks of masks: it reads only the first mask of a track (its own export writes one
    track per mask). So each object gets its own label, which identifies it on every frame.
    """

    def __init__(self, job: ExportJob) -> None:
        self._job = job
        self._labels = {
            i: name if not name.isdecimal() else f"object_{name}"
            for i, name in object_names(job.objects).items()
        }
        self._file = job.output.path.open("w", encoding="utf-8", newline="\n")
        self._tracks = 0
        self._masks: Iterator[dict[str, str]] = iter(())
        height, width = job.source.size_hw
        labels = "".join(
            f"<label><name>{name}</name><type>mask</type><attributes></attributes></label>"
            for name in self._labels.values()
        )
        self._file.write(
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
            f"<meta><task><name>{job.names.source}</name><mode>interpolation</mode>"
            f"<size>{len(job.numbers)}</size><labels>{labels}</labels>"
            f"<original_size><width>{width}</width><height>{height}</height></original_size>"
            "</task></meta>\n"
        )

    def write(self, frame: ExportFrame) -> None:
        """Write the frame's tracks. Raises `OSError`."""
        for chosen, mask in frame.masks():
            left, top, width, height = box_xywh(mask)
            window = mask[top : top + height, left : left + width]
            box = f'left="{left}" top="{top}" width="{width}" height="{height}" z_order="0"'
            runs = ", ".join(map(str, _runs(window)))
            ids = f'label="{self._labels[chosen.id]}" group_id="{chosen.id}"'
            flags = 'keyframe="1" occluded="0"'
            self._file.write(
                f'<track id="{self._tracks}" {ids} source="manual">'
                f'<mask frame="{frame.number}" outside="0" {flags} rle="{runs}" {box}></mask>'
                f'<mask frame="{frame.number + 1}" outside="1" {flags} rle="{runs}" {box}></mask>'
                "</track>\n"
            )
            self._tracks += 1

    def finish(self) -> None:
        """Close the file and open it for reading. Raises `OSError`."""
        self._file.write("</annotations>\n")
        self._file.close()
        self._masks = self._read()

    def check(self, frame: ExportFrame) -> float:
        """Compare the next tracks with the frame's objects."""
        worst = 1.0
        for chosen, mask in frame.masks():
            try:
                found = next(self._masks)
                if (found["frame"], found["group"]) != (str(frame.number), str(chosen.id)):
                    return 0.0
                worst = min(worst, mask_iou(cvat_mask(found, mask.shape), mask, empty=1.0))
            except (StopIteration, ElementTree.ParseError, KeyError, ValueError):
                return 0.0
        return worst

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> Iterator[dict[str, str]]:
        """Yield the attributes of each track's first mask and its group, one track in memory."""
        with self._job.output.path.open("rb") as file:
            events = ElementTree.iterparse(file, events=("start", "end"))  # noqa: S314
            _, root = next(events)
            for event, element in events:
                if event == "end" and element.tag == "track":
                    yield element[0].attrib | {"group": element.attrib["group_id"]}
                    root.clear()


def _runs(window: Mask) -> list[int]:
    """Row-major run lengths, alternating background and mask, background first."""
    flat = window.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(edges, prepend=0, append=flat.size).tolist()
    return [0, *lengths] if flat[0] else lengths


def cvat_mask(found: Mapping[str, str], size_hw: SizeHW) -> Mask:
    """Decode a mask element's attributes. Raises `KeyError`, `ValueError`."""
    runs = [int(length) for length in found["rle"].split(",")]
    left, top, width, height = (int(found[k]) for k in ("left", "top", "width", "height"))
    mask = np.zeros(size_hw, np.bool_)
    window = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top : top + height, left : left + width] = window.reshape(height, width)
    return mask
