"""Exporters of PNG files: DAVIS, YouTube-VOS, plain label maps, black-and-white mattes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.exports.color import Plane, levels
from maskstream.pipeline.exports.frames import ExportFrame
from maskstream.pipeline.exports.job import ExportJob
from maskstream.pipeline.exports.names import object_names
from maskstream.pipeline.exports.png import davis_palette, encode_png
from maskstream.pipeline.exports.shots import Shot, Shots
from maskstream.pipeline.exports.source_video import SourceVideo
from maskstream.pipeline.sources.mask_images import read_label_map
from maskstream.pipeline.types import LabelMap

DAVIS_RESOLUTION = "480p"
"""Resolution folder that DAVIS readers expect by default, whatever the image size."""


class LabelImages:
    """Writes one label map per frame; the object on top owns a pixel.

    folder: below the output. bits: 8 or 16 a pixel. palette: as in `encode_png`.
    """

    def __init__(
        self, job: ExportJob, *, bits: int = 8, palette: bytes | None = None, folder: str = ""
    ) -> None:
        job.names.require("frame")
        self._job = job
        self._dtype = np.uint8 if bits == 8 else np.uint16
        self._palette = palette
        self._folder = folder

    @classmethod
    def davis(cls, job: ExportJob) -> LabelImages:
        """Indexed PNG with DAVIS' palette; in DAVIS' folder layout if images are written, too."""
        folder = f"Annotations/{DAVIS_RESOLUTION}/{job.names.source}/" if job.images else ""
        return cls(job, palette=davis_palette(), folder=folder)

    def write(self, frame: ExportFrame) -> None:
        """Write the frame's file. Raises `OSError`."""
        self.write_labels(frame, frame.label_map())

    def write_labels(self, frame: ExportFrame, labels: LabelMap) -> None:
        """Write a label map as the frame's file. Raises `OSError`."""
        data = encode_png(labels.astype(self._dtype), self._palette)
        self._job.output.put(self._file(frame), data)

    def finish(self) -> None:
        """Nothing to do."""

    def check(self, frame: ExportFrame) -> float:
        """1 if the file contains exactly the frame's labels, else 0."""
        try:
            read = read_label_map(self._job.output.path / self._file(frame))
        except SourceError:
            return 0.0
        return float(np.array_equal(read, frame.label_map()))

    def close(self) -> None:
        """Nothing to do."""

    def _file(self, frame: ExportFrame) -> str:
        return f"{self._folder}{self._job.names.of(frame.number)}.png"


class YoutubeVos(LabelImages):
    """Writes `Annotations/VIDEO/00012.png` and `meta.json`, which lists each object's frames."""

    def __init__(self, job: ExportJob) -> None:
        self._video = job.names.source
        super().__init__(job, palette=davis_palette(), folder=f"Annotations/{self._video}/")
        self._rows: dict[int, list[int]] = {chosen.id: [] for chosen in job.objects}

    def write(self, frame: ExportFrame) -> None:
        """Write the frame's file and record its objects. Raises `OSError`."""
        labels = frame.label_map()
        self.write_labels(frame, labels)
        for object_id in np.unique(labels).tolist():
            if object_id:
                self._rows[object_id].append(frame.row)

    def finish(self) -> None:
        """Write `meta.json`. Raises `OSError`."""
        numbers, names = self._job.numbers, self._job.names
        objects = {
            str(chosen.id): {
                "category": chosen.category,
                "frames": [names.of(int(numbers[row])) for row in self._rows[chosen.id]],
            }
            for chosen in self._job.objects
            if self._rows[chosen.id]
        }
        meta = {"videos": {self._video: {"objects": objects}}}
        self._job.output.put("meta.json", json.dumps(meta, indent=1).encode())


class Mattes:
    """Writes a black-and-white image per object and frame: its whole mask is white."""

    def __init__(self, job: ExportJob, *, bits: int = 8) -> None:
        job.names.require("frame", *(["object"] if len(job.objects) > 1 else []))
        self._job = job
        self._bits = bits
        self._names = object_names(job.objects)
        self._source_video: SourceVideo | None = None
        self._shots = self._begin()

    def write(self, frame: ExportFrame) -> None:
        """Write a file for each object, even if its mask is empty. Raises `OSError`."""
        for shot in self._shots.push(frame):
            for name, pixels in self._files(shot):
                self._job.output.put(name, encode_png(pixels))

    def finish(self) -> None:
        """Start the second pass, to compare."""
        self.close()
        self._shots = self._begin()

    def check(self, frame: ExportFrame) -> float:
        """1 if the files that are complete now contain their mattes, else 0."""
        for shot in self._shots.push(frame):
            for name, pixels in self._files(shot):
                try:
                    read = read_label_map(self._job.output.path / name)
                except SourceError:
                    return 0.0
                if not np.array_equal(read, pixels):
                    return 0.0
        return 1.0

    def close(self) -> None:
        """Close the video."""
        if self._source_video is not None:
            self._source_video.close()

    def _begin(self) -> Shots:
        self._source_video = None if self._job.video is None else SourceVideo(self._job)
        return Shots(self._job, source_video=self._source_video, each=True)

    def _files(self, shot: Shot) -> Iterator[tuple[str, Plane]]:
        for chosen in self._job.objects:
            name = self._job.names.of(shot.frame.number, self._names[chosen.id])
            yield f"{name}.png", levels(shot.mattes[chosen.id], self._bits)
