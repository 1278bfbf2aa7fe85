"""Backward pass: track objects from their first prompt to earlier frames.

It runs before the forward pass and writes its masks to a file on disk, last frame first. The
forward pass reads them from the file's end, frame by frame, and adds them to its own.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.prompts import PromptLog, RemoveEvent
from maskstream.pipeline.types import Frame, FrameResult, SourceInfo
from maskstream.trackers.motion import KalmanBox
from maskstream.trackers.state import TrackState
from maskstream.trackers.track import LOGIT_LIMIT, Track, box_of

_IN_MEMORY_BYTES = 1 << 20
_FRAME = struct.Struct("<qq")  # frame index, bytes of the packed tracks before this
_TRACK = struct.Struct("<qBd4d2q4i")  # id, state, score, box, grid, window


@dataclass(frozen=True, slots=True)
class BackwardPass:
    """Options of a backward pass in `Pipeline.run`.

    scratch: folder for the temporary file of masks; None: the system's. on_open, on_frame: called
    with its source and frames, from the last prompt's frame to the first.
    """

    scratch: Path | None = None
    on_open: Callable[[SourceInfo], None] | None = None
    on_frame: Callable[[FrameResult], None] | None = None


def first_prompts(prompts: PromptLog) -> PromptLog:
    """Prompts of the backward pass: each object's events on the frame of its first prompt.

    Objects prompted on frame 0 are left out: there is no earlier frame.
    """
    first: dict[int, int] = {}
    for event in prompts.prompts:
        if not isinstance(event, RemoveEvent):
            first[event.object] = min(event.frame, first.get(event.object, event.frame))
    events = tuple(e for e in prompts.prompts if 0 < first.get(e.object, 0) == e.frame)
    return PromptLog(version=1, events=events)


def reversed_in_time(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield reversed frames with timestamps that increase from 0."""
    end: int | None = None
    for frame in frames:
        if frame.pts is not None:
            end = frame.pts if end is None else end
            frame = replace(frame, pts=end - frame.pts)
        yield frame


class BackwardTracks:
    """Stack of the backward pass's tracks by frame, in an unnamed temporary file.

    Frames are added in descending and read in ascending order. A frame is one compressed record
    followed by its index and length; masks are stored as float16 logits of the window around them.
    The first MiB stays in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._end = 0
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            _IN_MEMORY_BYTES, dir=None if folder is None else str(folder)
        )

    def close(self) -> None:
        """Close and delete the file."""
        self._file.close()

    def add(self, index: int, tracks: Sequence[Track]) -> None:
        """Add the tracks of a frame that precedes all added so far.

        Raises:
            StoreError: the file cannot be written.
        """
        if not tracks:
            return
        packed = zlib.compress(b"".join(map(_pack, tracks)), level=1)
        record = packed + _FRAME.pack(index, len(packed))
        try:
            self._file.write(record)
            self._file.flush()  # disk errors are raised here
        except OSError as error:
            raise self._refused(error) from error
        self._end += len(record)

    def at(self, index: int) -> list[Track]:
        """The tracks of a frame; those of earlier frames are dropped."""
        while self._end:
            self._file.seek(self._end - _FRAME.size)
            found, length = _FRAME.unpack(self._file.read(_FRAME.size))
            if found > index:
                break
            self._end -= _FRAME.size + length
            if found == index:
                self._file.seek(self._end)
                return list(_unpack(zlib.decompress(self._file.read(length))))
        return []

    def _refused(self, error: OSError) -> StoreError:
        where = self._folder or tempfile.gettempdir()
        return StoreError(
            f"The backward pass cannot keep its masks in {where}: {error.strerror or error}."
        )


def _pack(track: Track) -> bytes:
    box = box_of(track.mask) if track.visible else None
    rows, columns = track.logits.shape
    x0 = y0 = x1 = y1 = 0
    if box is not None:  # with a margin of one cell, for the border between the two
        x0, y0 = (max(0, int(v) - 1) for v in box[:2])
        x1, y1 = min(columns, int(box[2]) + 1), min(rows, int(box[3]) + 1)
    # Reentered in reverse order means visible until it is lost, in order.
    state = TrackState.TRACKED if track.visible else track.state
    values = (track.id, state, track.score, *track.motion.box_xyxy, rows, columns, x0, y0, x1, y1)
    return _TRACK.pack(*values) + track.logits[y0:y1, x0:x1].astype("<f2").tobytes()


def _unpack(packed: bytes) -> Iterator[Track]:
    offset = 0
    while offset < len(packed):
        values = _TRACK.unpack_from(packed, offset)
        offset += _TRACK.size
        object_id, state, score, *box, rows, columns, x0, y0, x1, y1 = values
        logits = np.full((rows, columns), -LOGIT_LIMIT, np.float32)
        window = np.frombuffer(packed, "<f2", (y1 - y0) * (x1 - x0), offset)
        logits[y0:y1, x0:x1] = window.reshape(y1 - y0, x1 - x0)
        offset += window.nbytes
        motion = KalmanBox.start(np.array(box))
        yield Track(object_id, logits, motion, score, TrackState(state), True, 0.0)
