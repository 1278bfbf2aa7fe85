"""Exporter of NumPy archives: label maps for `np.load` and `eval video`."""

from __future__ import annotations

import zipfile
import zlib
from typing import IO

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.exports.frames import ExportFrame
from maskstream.pipeline.exports.job import ExportJob

_MASKS = "masks"


class Npz:
    """Writes arrays `masks` (label maps uint16 [T, H, W]), `frames`, `object_ids`, `object_names`.

    `masks` is compressed and read back frame by frame, in constant memory.
    """

    def __init__(self, job: ExportJob) -> None:
        self._job = job
        self._archive = zipfile.ZipFile(job.output.path, "w", zipfile.ZIP_DEFLATED)
        self._frames = self._begin(_MASKS)
        shape = (len(job.numbers), *job.source.size_hw)
        np.lib.format.write_array_header_1_0(
            self._frames, {"descr": "<u2", "fortran_order": False, "shape": shape}
        )

    def write(self, frame: ExportFrame) -> None:
        """Compress a frame. Raises `OSError`."""
        self._frames.write(frame.label_map().astype("<u2").tobytes())

    def finish(self) -> None:
        """Add the small arrays, close the archive and open it for reading. Raises `OSError`."""
        self._frames.close()
        objects = self._job.objects
        self._add("frames", self._job.numbers)
        self._add("object_ids", np.array([chosen.id for chosen in objects], np.int64))
        self._add("object_names", np.array([chosen.name for chosen in objects], np.str_))
        self._archive.close()
        self._archive = zipfile.ZipFile(self._job.output.path)

    def check(self, frame: ExportFrame) -> float:
        """1 if the archive's next frame is this one, else 0."""
        expected = frame.label_map().astype("<u2").tobytes()
        try:
            if self._frames.closed:
                self._frames = self._archive.open(f"{_MASKS}.npy")
                np.lib.format.read_magic(self._frames)
                np.lib.format.read_array_header_1_0(self._frames)
            return float(self._frames.read(len(expected)) == expected)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError):
            return 0.0

    def close(self) -> None:
        """Close the archive."""
        self._frames.close()
        self._archive.close()

    def _add(self, name: str, array: npt.NDArray[np.generic]) -> None:
        with self._begin(name) as file:
            np.lib.format.write_array(file, array, allow_pickle=False)

    def _begin(self, name: str) -> IO[bytes]:
        entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: equal masks give equal files
        entry.compress_type = zipfile.ZIP_DEFLATED
        return self._archive.open(entry, "w", force_zip64=True)
