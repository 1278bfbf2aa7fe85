"""Image sequences for video editors: PNG with straight alpha, OpenEXR with object layers."""

from __future__ import annotations

import io
import struct
import zlib
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.exports.color import NOT_SAID, levels, rgb_of
from maskstream.pipeline.exports.frames import ExportFrame
from maskstream.pipeline.exports.job import ExportJob
from maskstream.pipeline.exports.names import object_names
from maskstream.pipeline.exports.shots import ALL, Shot, Shots
from maskstream.pipeline.exports.source_video import SourceVideo

_AFTER_HEADER = 33  # bytes of a PNG's signature and IHDR
_PNG_LEVEL = 3
# Chromaticities of red, green, blue and white, H.273 table 2; BT.709's if unspecified.
_D65 = (0.3127, 0.329)
_PRIMARIES: dict[int, tuple[float, ...]] = {
    1: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65),
    6: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *_D65),
    9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046, *_D65),
    12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, *_D65),
}


class _ImageFiles(ABC):
    """Base of exporters that write one file per frame; all values are compared on reading back.

    each: whether a matte per object is needed.
    """

    suffix: str

    def __init__(self, job: ExportJob, *, each: bool = False) -> None:
        job.names.require("frame")
        self._job = job
        self._each = each
        self._source_video = SourceVideo(job)
        with ExitStack() as opening:
            opening.callback(self._source_video.close)
            self._shots = Shots(job, source_video=self._source_video, each=each)
            self._color = self._source_video.color
            opening.pop_all()

    def write(self, frame: ExportFrame) -> None:
        """Add a frame, and write the files that are complete now. Raises `OSError`."""
        for shot in self._shots.push(frame):
            self._job.output.put(self._name(shot), self.encode(shot))

    def finish(self) -> None:
        """Reopen the video to compare. Raises `OSError`."""
        self._source_video.close()
        self._source_video = SourceVideo(self._job)
        self._shots = Shots(self._job, source_video=self._source_video, each=self._each)

    def check(self, frame: ExportFrame) -> float:
        """1 if the files that are complete now are as written, else 0."""
        return min((self._check(shot) for shot in self._shots.push(frame)), default=1.0)

    def close(self) -> None:
        """Close the video."""
        self._source_video.close()

    @abstractmethod
    def encode(self, shot: Shot) -> bytes:
        """Encode the file of a frame."""

    @abstractmethod
    def equals(self, data: bytes, shot: Shot) -> bool:
        """Whether a file contains the frame."""

    def _check(self, shot: Shot) -> float:
        try:
            data = (self._job.output.path / self._name(shot)).read_bytes()
        except OSError:
            return 0.0
        return float(self.equals(data, shot))

    def _name(self, shot: Shot) -> str:
        return f"{self._job.names.of(shot.frame.number)}{self.suffix}"


class PngCutOuts(_ImageFiles):
    """Writes RGBA PNG with straight alpha; colors under transparent pixels are unchanged.

    bits: 8 or 16 a channel. Color tags of the source are written (`cICP`).
    """

    suffix = ".png"

    def __init__(self, job: ExportJob, *, bits: int = 8) -> None:
        self._bits = bits
        super().__init__(job)

    def encode(self, shot: Shot) -> bytes:
        """Encode the file of a frame."""
        options = [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL]
        bgra = cv2.cvtColor(self._pixels(shot), cv2.COLOR_RGBA2BGRA)
        data = bytes(cv2.imencode(".png", bgra, options)[1])
        color = self._color
        if NOT_SAID in (color.primaries, color.transfer):
            return data
        # Portable Network Graphics, 3rd edition, 11.3.2.6: primaries, transfer, RGB, full range.
        code = b"cICP" + bytes([color.primaries, color.transfer, 0, 1])
        chunk = struct.pack(">I", 4) + code + struct.pack(">I", zlib.crc32(code))
        return data[:_AFTER_HEADER] + chunk + data[_AFTER_HEADER:]

    def equals(self, data: bytes, shot: Shot) -> bool:
        """Whether a file contains exactly the frame's values."""
        bgra = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
        if bgra is None or bgra.ndim != 3 or bgra.shape[2] != 4:
            return False
        return np.array_equal(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA), self._pixels(shot))

    def _pixels(self, shot: Shot) -> npt.NDArray[Any]:
        rgb = rgb_of(shot.source, self._color, self._bits)
        return np.dstack([rgb, levels(shot.matte, self._bits)])


class ExrLayers(_ImageFiles):
    """Writes OpenEXR in half floats, linear light, premultiplied, as editors expect.

    Channels `R G B A` hold all objects together, and each object has its own layer, `NAME.R` to
    `NAME.A`. Values are linearized by the sRGB curve whatever the source's tag, so that a viewer
    with that curve shows the video's colors.

    Raises:
        ConfigError: the library for OpenEXR is not installed.
    """

    suffix = ".exr"

    def __init__(self, job: ExportJob) -> None:
        try:
            import OpenEXR
        except ImportError as error:
            raise ConfigError(
                'OpenEXR files need the library OpenEXR: pip install "maskstream[editors]".'
            ) from error
        self._exr: Any = OpenEXR
        # A dot would start another layer.
        self._names = {k: v.replace(".", "_") for k, v in object_names(job.objects).items()}
        self._linear = _linear_of_16_bits()
        super().__init__(job, each=True)

    def encode(self, shot: Shot) -> bytes:
        """Encode the file of a frame."""
        exr = self._exr
        header = {
            "compression": exr.ZIP_COMPRESSION,
            "type": exr.scanlineimage,
            "chromaticities": _PRIMARIES.get(self._color.primaries, _PRIMARIES[1]),
            "framesPerSecond": (
                self._source_video.rate.numerator,
                self._source_video.rate.denominator,
            ),
        }
        file = io.BytesIO()
        with exr.File(header, self._channels(shot)) as written:
            written.write(file)
        return file.getvalue()

    def equals(self, data: bytes, shot: Shot) -> bool:
        """Whether a file contains exactly the frame's values."""
        try:
            with self._exr.File(io.BytesIO(data), separate_channels=True) as read:
                found = {name: channel.pixels for name, channel in read.channels().items()}
        except (RuntimeError, ValueError, TypeError):
            return False
        expected = self._channels(shot)
        return found.keys() == expected.keys() and all(
            np.array_equal(found[name], values) for name, values in expected.items()
        )

    def _channels(self, shot: Shot) -> dict[str, npt.NDArray[np.float16]]:
        """Channels as half floats [H, W], by name."""
        linear = self._linear[rgb_of(shot.source, self._color, 16)]
        mattes = [shot.mattes[chosen.id] for chosen in self._job.objects]
        together = np.maximum.reduce([np.zeros(linear.shape[:2], np.float32), *mattes])
        layers = {"": together} | {
            f"{self._names[object_id]}.": matte
            for object_id, matte in shot.mattes.items()
            if object_id != ALL
        }
        channels = {}
        for layer, matte in layers.items():
            for i, name in enumerate("RGB"):
                channels[layer + name] = (linear[..., i] * matte).astype(np.float16)
            channels[layer + "A"] = matte.astype(np.float16)
        return channels


def _linear_of_16_bits() -> npt.NDArray[np.float32]:
    """Linear light of each 16-bit value, IEC 61966-2-1, float32 [65536]."""
    encoded = np.arange(1 << 16) / ((1 << 16) - 1)
    curved = ((encoded + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, curved).astype(np.float32)
