"""The backward pass: objects whose first prompt comes later are followed to earlier frames too.

It runs before the forward one and leaves its masks in a file on disk, last frame first. The forward
pass takes them off its end, frame by frame, and paints them beside its own.
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
_FRAME = struct.Struct("<qq")  # number of the frame, bytes of the tracks before this
_TRACK = struct.Struct("<qBd4d2q4i")  # id, state, score, box, grid, window


@dataclass(frozen=True, slots=True)
class BackwardPass:
    """Asks `Pipeline.run` for a backward pass.

    scratch: folder for its masks, which are gone when the run ends, however it ends; the system's
    own if None. on_open, on_frame: told of its frames, from the last prompt's to the first.
    """

    scratch: Path | None = None
    on_open: Callable[[SourceInfo], None] | None = None
    on_frame: Callable[[FrameResult], None] | None = None


def first_prompts(prompts: PromptLog) -> PromptLog:
    """What the backward pass is told: each object's events on the frame of its first prompt.

    Objects given on frame 0 are left out: there is nothing before it.
    """
    first: dict[int, int] = {}
    for event in prompts.prompts:
        if not isinstance(event, RemoveEvent):
            first[event.object] = min(event.frame, first.get(event.object, event.frame))
    events = tuple(e for e in prompts.prompts if 0 < first.get(e.object, 0) == e.frame)
    return PromptLog(version=1, events=events)


def reversed_in_time(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Frames that come last first, with timestamps that grow from 0: time runs forward."""
    end: int | None = None
    for frame in frames:
        if frame.pts is not None:
            end = frame.pts if end is None else end
            frame = replace(frame, pts=end - frame.pts)
        yield frame


class BackwardTracks:
    """Tracks of the frames before their first prompt: a stack in a file without a name.

    Frames are added last first and asked for first first. A frame is one record, compressed, whose
    number and length follow it; of a mask there is the window around it, as float16 logits. The
    first MiB stays in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._end = 0
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            _IN_MEMORY_BYTES, dir=None if folder is None else str(folder)
        )

    def close(self) -> None:
        """Let go of the file, which is gone then."""
        self._file.close()

    def add(self, index: int, tracks: Sequence[Track]) -> None:
        """Keep the tracks of a frame, which lies before all that were added.

        Raises:
            StoreError: the disk refused.
        """
        if not tracks:
            return
        packed = zlib.compress(b"".join(map(_pack, tracks)), level=1)
        record = packed + _FRAME.pack(index, len(packed))
        try:
            self._file.write(record)
            self._file.flush()  # what is wrong with the disk shows here
        except OSError as error:
            raise self._refused(error) from error
        self._end += len(record)

    def at(self, index: int) -> list[Track]:
        """The tracks of a frame; those of frames before it are forgotten."""
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
    if box is not None:  # and a cell around it, between which and the mask its border lies
        x0, y0 = (max(0, int(v) - 1) for v in box[:2])
        x1, y1 = min(columns, int(box[2]) + 1), min(rows, int(box[3]) + 1)
    # Seen again in reverse is about to be lost in the direction of time.
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
