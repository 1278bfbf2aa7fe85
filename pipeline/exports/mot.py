"""Exporters for multi-object tracking benchmarks: MOTS (masks) and MOTChallenge (boxes)."""

from __future__ import annotations

from maskstream.pipeline.exports.coco import iou_with, rle_of
from maskstream.pipeline.exports.frames import ExportFrame, box_xywh
from maskstream.pipeline.exports.job import ExportJob


class _Lines:
    """Base of exporters that write a line per object and frame, in order."""

    def __init__(self, job: ExportJob) -> None:
        self._job = job
        self._file = job.output.path.open("w", encoding="ascii", newline="\n")

    def finish(self) -> None:
        """Open the file at its first line. Raises `OSError`."""
        self._file.close()
        self._file = self._job.output.path.open(encoding="ascii", errors="replace", newline="\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Mots(_Lines):
    """Lines `frame id class height width rle`, https://www.vision.rwth-aachen.de/page/mots.

    Masks must not overlap in this format, so the object on top owns a pixel. Classes count from 1.
    """

    def write(self, frame: ExportFrame) -> None:
        """Write a line for each visible object. Raises `OSError`."""
        labels, categories = frame.label_map(), self._job.categories
        height, width = labels.shape
        for chosen in frame.objects:
            mask = labels == chosen.id
            if mask.any():
                kind = 1 + categories.index(chosen.category)
                counts = rle_of(mask)["counts"]
                self._file.write(f"{frame.number} {chosen.id} {kind} {height} {width} {counts}\n")

    def check(self, frame: ExportFrame) -> float:
        """Compare the next lines with the visible objects."""
        labels, worst = frame.label_map(), 1.0
        for chosen in frame.objects:
            mask = labels == chosen.id
            if not mask.any():
                continue
            fields = self._file.readline().rstrip("\n").split(" ", 5)
            if len(fields) < 6 or fields[:2] != [str(frame.number), str(chosen.id)]:
                return 0.0
            if fields[3:5] != [str(length) for length in mask.shape]:
                return 0.0
            read = {"size": list(mask.shape), "counts": fields[5]}
            worst = min(worst, iou_with(read, mask, mask.shape))
        return worst


class Mot(_Lines):
    """MOTChallenge boxes, https://motchallenge.net/instructions.

    Lines `frame,id,left,top,width,height,confidence,class,-1,-1` with boxes of the whole masks;
    pixels and classes count from 1, as in the benchmark's own tools. Without a detector's classes
    the class is -1.
    """

    def write(self, frame: ExportFrame) -> None:
        """Write a line for each object that has pixels. Raises `OSError`."""
        self._file.writelines(self._expected(frame))

    def check(self, frame: ExportFrame) -> float:
        """1 if the next lines are the frame's, else 0."""
        return float(all(self._file.readline() == line for line in self._expected(frame)))

    def _expected(self, frame: ExportFrame) -> list[str]:
        categories = self._job.categories
        lines = []
        for chosen, mask in frame.masks():
            left, top, width, height = box_xywh(mask)
            place = f"{left + 1},{top + 1},{width},{height}"
            score = frame.score(chosen.id)
            kind = 1 + categories.index(chosen.category) if chosen.label else -1
            lines.append(f"{frame.number},{chosen.id},{place},{score:.4f},{kind},-1,-1\n")
        return lines
