"""A table of the frames that reading a video in order gives, to find each of them again.

Containers promise more than they keep: seeking in MPEG-TS lands somewhere near, damaged files lose
frames, joined ones repeat times. A frame that seeking reaches is therefore recognized by its time
and a checksum of its pixels before it is given a number.
"""

from __future__ import annotations

import json
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from av.video.frame import VideoFrame

from maskstream.pipeline.sources.timestamps import Stamp
from maskstream.pipeline.sources.video import VideoFile, VideoReader, WholeVideo
from maskstream.pipeline.types import Frame

_NONE = -(1 << 63)  # of a time that is not stated
_ENTRIES_TRIED = 3  # keyframes, before a video is read from its start instead
_LANDING_MAX = 256  # pictures decoded in search of a keyframe after seeking to it
_VERSION = 1


class FrameTable:
    """Frames of a video in order, by decoding it: time, duration, checksum, keyframes.

    About 28 bytes a frame. complete: whether the last frame is the video's last.
    """

    def __init__(self) -> None:
        self.complete = False
        self._raw = array("q")
        self._pts = array("q")
        self._durations = array("q")
        self._checksums = array("I")
        self._keyframes = array("q")
        self._jumps: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._raw)

    def append(self, picture: VideoFrame, stamp: Stamp) -> None:
        """Add the next decoded picture."""
        if picture.key_frame and picture.pts is not None:
            self._keyframes.append(len(self))
        if stamp.jump_s:
            self._jumps[len(self)] = stamp.jump_s
        self._raw.append(_known(picture.pts))
        self._pts.append(_known(stamp.pts))
        self._durations.append(_known(stamp.duration))
        self._checksums.append(checksum(picture))

    def stamp(self, number: int) -> Stamp:
        """Time of a frame."""
        pts, duration = self._pts[number], self._durations[number]
        return Stamp(
            None if pts == _NONE else pts,
            None if duration == _NONE else duration,
            self._jumps.get(number, 0.0),
        )

    def is_frame(self, number: int, picture: VideoFrame) -> bool:
        """Whether a decoded picture is the frame with this number."""
        return (
            number < len(self)
            and _known(picture.pts) == self._raw[number]
            and checksum(picture) == self._checksums[number]
        )

    def entries(self, number: int) -> list[tuple[int, int]]:
        """Number and time of the last keyframes at or before a frame, latest first."""
        end = bisect_right(self._keyframes, number)
        chosen = self._keyframes[max(0, end - _ENTRIES_TRIED) : end]
        return [(keyframe, self._raw[keyframe]) for keyframe in reversed(chosen) if keyframe]

    def save(self, path: Path, identity: dict[str, Any] | None) -> None:
        """Write the table to a file, for the video with this identity. Raises `OSError`."""
        header = {"version": _VERSION, "identity": identity, "jumps": list(self._jumps.items())}
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            np.savez_compressed(
                file,
                header=np.array(json.dumps(header)),
                raw=np.array(self._raw, np.int64),
                pts=np.array(self._pts, np.int64),
                durations=np.array(self._durations, np.int64),
                checksums=np.array(self._checksums, np.uint32),
                keyframes=np.array(self._keyframes, np.int64),
            )
        part.replace(path)

    @classmethod
    def load(cls, path: Path, identity: dict[str, Any] | None) -> FrameTable | None:
        """Read a complete table; None if there is none for the video with this identity."""
        table = cls()
        try:
            with path.open("rb") as opened, np.load(opened) as file:
                header = json.loads(str(file["header"]))
                if header["version"] != _VERSION or header["identity"] != identity:
                    return None
                table._raw.frombytes(file["raw"].tobytes())
                table._pts.frombytes(file["pts"].tobytes())
                table._durations.frombytes(file["durations"].tobytes())
                table._checksums.frombytes(file["checksums"].tobytes())
                table._keyframes.frombytes(file["keyframes"].tobytes())
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        table._jumps = dict(header["jumps"])
        table.complete = True
        return table


class Survey(WholeVideo):
    """Decodes a video once, in order, and enters its frames into a table."""

    def __init__(self, source: VideoFile, table: FrameTable | None = None) -> None:
        super().__init__(source)
        self.table = FrameTable() if table is None else table
        self._pictures = self.reader.pictures()

    def next(self) -> Frame | None:
        """The next frame, entered into the table; None at the end."""
        picture = next(self._pictures, None)
        if picture is None:
            self.table.complete = True
            return None
        stamp = self.reader.clock.stamp(picture)
        self.table.append(picture, stamp)
        return self.reader.frame(len(self.table) - 1, picture, stamp)


class TableReader(WholeVideo):
    """Reads frames of a video that are in a table, from any of them on.

    Every frame is recognized. Where seeking does not lead to the frame, an earlier keyframe is
    tried, and at last the video is read from its start.
    """

    def __init__(self, source: VideoFile, table: FrameTable) -> None:
        super().__init__(source)
        self._table = table

    def frames(self, first: int) -> Iterator[Frame]:
        """The frames from `first` to the end of the table. Raises `SourceError`."""
        before = max(0, first - 1)  # a deinterlaced picture depends on the one before it
        for entry, pts in self._table.entries(before):
            for frame in self._shown(self.reader, self._from_entry(entry, pts), entry):
                if frame.index == first:
                    yield frame
                    first += 1
            if first == len(self._table):
                return
        with self._source.open() as reader:
            pictures = islice(reader.pictures(), len(self._table))
            for frame in self._shown(reader, pictures, 0):
                if frame.index >= first:
                    yield frame

    def _shown(
        self, reader: VideoReader, pictures: Iterator[VideoFrame], number: int
    ) -> Iterator[Frame]:
        """The frames of decoded pictures, the first of which has this number."""
        for _, shown in reader.whole(pictures):
            yield reader.frame(number, shown, self._table.stamp(number))
            number += 1

    def _from_entry(self, number: int, pts: int) -> Iterator[VideoFrame]:
        """Decoded pictures from a keyframe on, as long as they are those of the table."""
        self.reader.seek(pts)
        pictures = self.reader.pictures()
        landing = islice(pictures, _LANDING_MAX)
        picture = next((found for found in landing if self._table.is_frame(number, found)), None)
        while picture is not None and self._table.is_frame(number, picture):
            yield picture
            number += 1
            picture = next(pictures, None)


def read_table(source: VideoFile, table: FrameTable, first: int) -> Iterator[Frame]:
    """The frames from `first` to the end of a table. Raises `SourceError`."""
    with TableReader(source, table) as reader:
        yield from reader.frames(first)


def checksum(picture: VideoFrame) -> int:
    """CRC-32 of every second line of a picture's first plane, as stored."""
    plane = picture.planes[0]
    width = sum(
        component.width * -(-component.bits // 8)
        for component in picture.format.components
        if component.plane == 0
    )
    lines = np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size]
    used = lines.reshape(plane.height, plane.line_size)[::2, : min(width, plane.line_size)]
    return zlib.crc32(used.tobytes())


def _known(value: int | None) -> int:
    return _NONE if value is None else value
