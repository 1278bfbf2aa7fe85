"""Exporters of COCO JSON with run lengths: images, or videos and tracks as in YouTube-VIS.

Both are written and read back line by line, one annotation (YouTube-VIS: one frame of it) a line.
Formats: https://cocodataset.org/#format-data, https://github.com/youtubevos/vis.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import IO, Any

from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.exports.coco_annotations import CocoObject, encode_masks
from maskstream.pipeline.exports.frames import ExportFrame, Mask, box_xywh
from maskstream.pipeline.exports.job import ExportJob
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.iou import mask_iou


def rle_of(mask: Mask) -> JsonObject:
    """Encode a mask as COCO's compressed RLE, JSON values."""
    (encoded,) = encode_masks(mask[None])
    height, width = mask.shape
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def iou_with(segmentation: Any, mask: Mask, size_hw: SizeHW) -> float:
    """IoU of a decoded segmentation and a mask; 0 if it cannot be decoded."""
    try:
        return mask_iou(CocoObject(0, 0, segmentation=segmentation).mask(size_hw), mask, empty=1.0)
    except SourceError:
        return 0.0


def _head(job: ExportJob) -> JsonObject:
    return {
        "info": {"description": f"Masks of {Path(job.source.name).name}, by maskstream"},
        "licenses": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(job.categories, start=1)],
    }


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _write_lines(file: IO[bytes], lines: Iterator[bytes]) -> None:
    """Write elements of a JSON array, one a line."""
    for i, line in enumerate(lines):
        file.write(b"\n" if not i else b",\n")
        file.write(line)


class Coco:
    """Writes an image per frame, its id the frame number; `track_id` is the object id."""

    def __init__(self, job: ExportJob) -> None:
        job.names.require("frame")
        self._size = job.source.size_hw
        self._category = {name: i for i, name in enumerate(job.categories, start=1)}
        self._path = job.output.path
        self._file: IO[bytes] = self._path.open("wb")
        self._annotations = 0
        height, width = self._size
        self._file.write(_dump(_head(job))[:-1] + b',\n"images":[')
        images = (
            {"id": n, "file_name": job.image_of(n), "height": height, "width": width}
            for n in job.numbers.tolist()
        )
        _write_lines(self._file, map(_dump, images))
        self._file.write(b'],\n"annotations":[')
        self._begin = self._file.tell()

    def write(self, frame: ExportFrame) -> None:
        """Write the frame's annotations. Raises `OSError`."""
        for chosen, mask in frame.masks():
            self._file.write(b",\n" if self._annotations else b"\n")
            self._annotations += 1
            annotation = {
                "id": self._annotations,
                "image_id": frame.number,
                "category_id": self._category[chosen.category],
                "track_id": chosen.id,
                "segmentation": rle_of(mask),
                "area": int(mask.sum()),
                "bbox": box_xywh(mask),
                "iscrowd": 0,
                "score": round(frame.score(chosen.id), 4),
            }
            self._file.write(_dump(annotation))

    def finish(self) -> None:
        """Close the file, and open it at its first annotation. Raises `OSError`."""
        self._file.write(b"\n]}\n")
        self._file.close()
        self._file = self._path.open("rb")
        self._file.seek(self._begin + 1)

    def check(self, frame: ExportFrame) -> float:
        """Compare the next annotations with the frame's objects."""
        worst = 1.0
        for chosen, mask in frame.masks():
            read = _line(self._file)
            if not isinstance(read, dict):
                return 0.0
            if (read.get("image_id"), read.get("track_id")) != (frame.number, chosen.id):
                return 0.0
            worst = min(worst, iou_with(read.get("segmentation"), mask, self._size))
        return worst

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class CocoVideo:
    """Writes one video with an annotation per object: a list of run lengths over all frames.

    Frames arrive in order but are written object by object, so each object has a temporary file.
    """

    def __init__(self, job: ExportJob) -> None:
        job.names.require("frame")
        self._job = job
        self._size = job.source.size_hw
        self._file: IO[bytes] = job.output.path.open("wb")
        folder = job.output.path.parent
        self._waiting = tempfile.TemporaryDirectory(dir=folder, prefix=".export-")
        self._seen: set[int] = set()
        self._places: dict[int, int] = {}

    def write(self, frame: ExportFrame) -> None:
        """Append the frame's run lengths to the temporary files. Raises `OSError`."""
        for chosen, mask in frame.masks():
            self._seen.add(chosen.id)
            row = [frame.row, rle_of(mask), box_xywh(mask), int(mask.sum())]
            with self._rows_file(chosen.id).open("ab") as file:
                file.write(_dump(row) + b"\n")

    def finish(self) -> None:
        """Write the whole file and open it for reading. Raises `OSError`."""
        job, file = self._job, self._file
        height, width = self._size
        category = {name: i for i, name in enumerate(job.categories, start=1)}
        video = {"id": 1, "width": width, "height": height, "length": len(job.numbers)}
        file.write(_dump(_head(job))[:-1] + b',\n"videos":[')
        file.write(_dump(video)[:-1] + b',"file_names":[')
        names = (job.image_of(n) for n in job.numbers.tolist())
        _write_lines(file, map(_dump, names))
        file.write(b']}],\n"annotations":[')
        seen = (chosen for chosen in job.objects if chosen.id in self._seen)
        for i, chosen in enumerate(seen):
            values = {
                "id": chosen.id,
                "video_id": 1,
                "category_id": category[chosen.category],
                "iscrowd": 0,
                "height": height,
                "width": width,
            }
            file.write((b",\n" if i else b"\n") + _dump(values)[:-1])
            for column, key in enumerate((b"segmentations", b"bboxes", b"areas"), start=1):
                file.write(b',"' + key + b'":[')
                if column == 1:
                    self._places[chosen.id] = file.tell() + 1
                _write_lines(file, self._column(chosen.id, column))
                file.write(b"\n]")
            file.write(b"}")
        file.write(b"\n]}\n")
        file.close()
        self._file = job.output.path.open("rb")

    def check(self, frame: ExportFrame) -> float:
        """Compare the frame's line of each object."""
        worst = 1.0
        for object_id, place in self._places.items():
            self._file.seek(place)
            read, mask = _line(self._file), frame.mask(object_id)
            self._places[object_id] = self._file.tell()
            if read is None:
                worst = min(worst, float(not mask.any()))
            else:
                worst = min(worst, iou_with(read, mask, self._size))
        return worst

    def close(self) -> None:
        """Close the file and delete the temporary files."""
        self._file.close()
        self._waiting.cleanup()

    def _rows_file(self, object_id: int) -> Path:
        return Path(self._waiting.name) / f"{object_id}.jsonl"

    def _column(self, object_id: int, column: int) -> Iterator[bytes]:
        """Yield one value per frame, `null` where the object has no pixels."""
        upcoming = 0
        with self._rows_file(object_id).open("rb") as rows:
            for row in map(json.loads, rows):
                yield from chain(repeat(b"null", row[0] - upcoming), [_dump(row[column])])
                upcoming = row[0] + 1
        yield from repeat(b"null", len(self._job.numbers) - upcoming)


def _line(file: IO[bytes]) -> Any:
    """Read the next element of an array with one element a line; False at its end."""
    try:
        return json.loads(file.readline().rstrip(b",\n"))
    except ValueError:
        return False
