"""Exporter of OME-Zarr 0.5: label maps as one image with the axes t, y, x.

Most readers open a mask store directly; but its label array is named `labels`, which the
specification reserves for a group, so strict readers refuse it.
Format: https://ngff.openmicroscopy.org/0.5.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import BaseZarrError

from maskstream.pipeline.exports.frames import ExportFrame
from maskstream.pipeline.exports.job import ExportJob
from maskstream.pipeline.store.header import as_image
from maskstream.pipeline.store.layout import FRAMES_PER_SHARD, capped_threads, label_array_files
from maskstream.pipeline.store.records import compress
from maskstream.pipeline.store.shards import build_index

_IMAGE = "0"


class OmeZarr:
    """Writes array `0`, uint16 [T, H, W] in shards of 64 frames; ids and names are root attributes.

    The object on top owns a pixel.
    """

    def __init__(self, job: ExportJob) -> None:
        self._job = job
        self._shard: list[bytes] = []
        self._array: Any = None

    def write(self, frame: ExportFrame) -> None:
        """Compress a frame; a shard is written every 64 frames and at the end. Raises `OSError`."""
        self._shard.append(compress(np.ascontiguousarray(frame.label_map())))
        is_last = frame.row == len(self._job.numbers) - 1
        if len(self._shard) == FRAMES_PER_SHARD or is_last:
            ends = np.cumsum([len(chunk) for chunk in self._shard]).tolist()
            chunks = {
                row: (end - len(chunk), len(chunk))
                for row, (end, chunk) in enumerate(zip(ends, self._shard, strict=True))
            }
            number = frame.row // FRAMES_PER_SHARD
            data = b"".join((*self._shard, build_index(chunks)))
            self._job.output.put(f"{_IMAGE}/c/{number}/0/0", data)
            self._shard = []

    def finish(self) -> None:
        """Write the metadata and open the array for reading. Raises `OSError`."""
        job = self._job
        source = replace(job.source, name=Path(job.source.name).name)  # not where it lies
        shape = (len(job.numbers), *job.source.size_hw)
        for name, data in label_array_files(_IMAGE, shape).items():
            job.output.put(name, data)
        root = {
            "ome": as_image(source, _IMAGE),
            "maskstream": {
                "source": source.name,
                "frames": job.numbers.tolist(),
                "objects": {str(chosen.id): chosen.name for chosen in job.objects},
            },
        }
        document = {"zarr_format": 3, "node_type": "group", "attributes": root}
        job.output.put("zarr.json", json.dumps(document, indent=1).encode())
        with capped_threads():
            self._array = zarr.open_array(job.output.path, path=_IMAGE, mode="r")

    def check(self, frame: ExportFrame) -> float:
        """1 if the array's next frame is this one, else 0."""
        try:
            with capped_threads():
                read = np.asarray(self._array[frame.row])
        except (BaseZarrError, ValueError, RuntimeError):
            return 0.0
        return float(np.array_equal(read, frame.label_map()))

    def close(self) -> None:
        """Nothing to do."""
