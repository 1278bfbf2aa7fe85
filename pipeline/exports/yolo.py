"""Exporter of YOLO segmentation: a text file of polygons per frame, and data.yaml.

Format: https://docs.ultralytics.com/datasets/segment.
"""

from __future__ import annotations

import numpy as np
import yaml

from maskstream.pipeline.exports.frames import ExportFrame, Mask
from maskstream.pipeline.exports.job import ExportJob
from maskstream.pipeline.exports.polygons import Points, fill, polygons_of
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.iou import mask_iou

IOU_MIN = 0.98
"""Components get separate polygons if joining them would lower the IoU below this."""


class Yolo:
    """Writes `labels/NAME.txt`, a line `class x y x y …` per polygon, relative to the image size.

    Coordinates are the centers of boundary pixels; a frame without objects gives an empty file.
    """

    def __init__(self, job: ExportJob) -> None:
        job.names.require("frame")
        self._job = job
        self._class = {name: i for i, name in enumerate(job.categories)}

    def write(self, frame: ExportFrame) -> None:
        """Write the frame's file. Raises `OSError`."""
        lines = [line for _, lines in self._objects(frame) for line in lines]
        self._job.output.put(self._file(frame), "".join(lines).encode())

    def finish(self) -> None:
        """Write data.yaml. Raises `OSError`."""
        names = dict(enumerate(self._job.categories))
        values = {"path": ".", "train": "images", "val": "images", "names": names}
        self._job.output.put("data.yaml", yaml.safe_dump(values, sort_keys=False).encode())

    def check(self, frame: ExportFrame) -> float:
        """0 if the file is not as written, else the lowest IoU, rasterized as by Ultralytics."""
        with (self._job.output.path / self._file(frame)).open("rb") as file:
            worst = 1.0
            for mask, lines in self._objects(frame):
                drawn = np.zeros(mask.shape, np.bool_)
                for line in lines:
                    read = file.readline()
                    if read != line.encode():
                        return 0.0
                    drawn |= fill(_from_text(read.decode(), mask.shape), mask.shape)
                worst = min(worst, mask_iou(drawn, mask, empty=1.0))
            return 0.0 if file.read() else worst

    def close(self) -> None:
        """Nothing to do."""

    def _objects(self, frame: ExportFrame) -> list[tuple[Mask, list[str]]]:
        """Masks and their text lines."""
        return [
            (mask, [self._line(chosen.category, p, mask.shape) for p in polygons_of(mask, IOU_MIN)])
            for chosen, mask in frame.masks()
        ]

    def _line(self, category: str, polygon: Points, size_hw: SizeHW) -> str:
        height, width = size_hw
        shares = (polygon + 0.5) / (width, height)
        values = " ".join(f"{value:.6f}" for value in shares.ravel().tolist())
        return f"{self._class[category]} {values}\n"

    def _file(self, frame: ExportFrame) -> str:
        return f"labels/{self._job.names.of(frame.number)}.txt"


def _from_text(line: str, size_hw: SizeHW) -> Points:
    height, width = size_hw
    values = np.array(line.split()[1:], np.float64).reshape(-1, 2)
    return np.asarray(values * (width, height), np.int32)
