"""Frames of the video that the masks were made from, matched with frames of the store."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

from maskstream.pipeline.errors import ConfigError, SourceError, SourceNotFoundError
from maskstream.pipeline.exports.color import Color
from maskstream.pipeline.exports.frames import ExportFrame
from maskstream.pipeline.exports.job import ExportJob
from maskstream.pipeline.sources import VideoFile, open_source
from maskstream.pipeline.sources.timecode import Timecode
from maskstream.pipeline.sources.video import open_container
from maskstream.pipeline.sources.video_view import VideoView
from maskstream.pipeline.types import Frame, SourceInfo

_COUNT_TOLERANCE = 1  # frames: the count is estimated for some containers
_TIME_TOLERANCE = 0.5  # of the mean frame interval
_DEFAULT_RATE = Fraction(25)


class SourceVideo:
    """The video at `job.video`, read once from its start.

    first: its first frame. rate: frames per second. color: color tags. sound: file that may contain
    audio, None for images. restarts_s: by how many seconds each recording in the file that starts
    anew was moved, after the one before it. field_order: as in `SourceInfo`.

    Raises:
        SourceNotFoundError: it does not exist.
        SourceError: it cannot be read, or is not the video of the masks.
    """

    def __init__(self, job: ExportJob) -> None:
        if job.video is None:
            raise SourceError("This format needs the video: give it with --source.")
        self._path = job.video
        self._waiting: Frame | None = None
        self._shift_s: float | None = None
        self._last: Frame | None = None
        self.restarts_s: list[Fraction] = []
        with ExitStack() as opening:
            try:
                source = open_source(self._path, deinterlace=job.deinterlace)
                reader = opening.enter_context(source.open())
            except SourceNotFoundError as error:
                raise SourceNotFoundError(
                    f"The video {self._path} does not exist: give its new path with --source."
                ) from error
            self._frames = iter(reader)
            self._check(job, reader.info)
            self.rate = job.rate or reader.info.rate or job.source.rate or _DEFAULT_RATE
            self.field_order = reader.info.field_order
            self.first = self._peek()
            if job.rate is not None and self.first.pts is not None:
                raise ConfigError(f"--fps is for images; {self._path.name} has its own times.")
            self.sound = self._path if isinstance(source, VideoFile) else None
            self.color = _color_of(self.first, self.sound)
            self._timecode = Timecode.parse(reader.info.timecode or "")
            self._stack = opening.pop_all()

    def frame(self, wanted: ExportFrame) -> Frame:
        """The video's frame for a frame of the store; to be called in order."""
        index = wanted.result.index
        frame = self._next()
        while frame is not None and frame.index < index:
            frame = self._next()
        if frame is None or frame.index != index:
            raise SourceError(
                f"{self._path} has no frame {index}, which the masks have: it is not the video "
                "they were made from; give that with --source."
            )
        self._check_time(frame, wanted)
        return frame

    def timecode_at(self, index: int) -> str | None:
        """SMPTE timecode of a frame, if the video states one."""
        return None if self._timecode is None else str(self._timecode.advanced(index, self.rate))

    def ended(self) -> bool:
        """Whether the last requested frame was the last of the video."""
        return self._following() is None

    def duration(self, frame: Frame) -> int | None:
        """How long the last requested frame is shown, in ticks, if it is known."""
        following = self._following()
        if following is None or following.pts is None or frame.pts is None:
            return frame.duration
        return following.pts - frame.pts

    def close(self) -> None:
        """Close the video."""
        self._waiting = None
        self._stack.close()

    def _peek(self) -> Frame:
        first = self._following()
        if first is None:
            raise SourceError(f"{self._path} holds no frame; give the video with --source.")
        return first

    def _following(self) -> Frame | None:
        if self._waiting is None:
            self._waiting = self._read()
        return self._waiting

    def _read(self) -> Frame | None:
        """Read the next frame, and note by how much a recording that starts anew was moved."""
        frame, last = next(self._frames, None), self._last
        if frame is not None and frame.jump_s and last is not None:
            step = ((frame.pts or 0) - (last.pts or 0)) * frame.time_base
            self.restarts_s.append(step - Fraction(frame.jump_s).limit_denominator(1_000_000))
        self._last = frame
        return frame

    def _next(self) -> Frame | None:
        frame, self._waiting = self._waiting, None
        return frame or self._read()

    def _check(self, job: ExportJob, found: SourceInfo) -> None:
        advice = "it is not the video they were made from; give that with --source."
        if found.size_hw != job.source.size_hw:
            (height, width), (store_height, store_width) = found.size_hw, job.source.size_hw
            raise SourceError(
                f"{self._path} is {width}x{height}, but the masks are {store_width}x{store_height}:"
                f" {advice}"
            )
        count, expected = found.frame_count, job.frame_count
        if count and expected and abs(count - expected) > _COUNT_TOLERANCE:
            raise SourceError(
                f"{self._path} has {count} frames, but the video of the masks had {expected}: "
                f"{advice}"
            )

    def _check_time(self, frame: Frame, wanted: ExportFrame) -> None:
        """Compare timestamps: a retimed or cut video differs; remuxing only shifts all of them."""
        if frame.pts_s is None or wanted.result.pts_s is None:
            return
        shift_s = frame.pts_s - wanted.result.pts_s
        self._shift_s = shift_s if self._shift_s is None else self._shift_s
        if abs(shift_s - self._shift_s) * self.rate > _TIME_TOLERANCE:
            raise SourceError(
                f"Frame {frame.index} of {self._path} is at {frame.pts_s:.3f} s, but at "
                f"{wanted.result.pts_s:.3f} s in the mask store: it is not the video the masks "
                "were made from; give that with --source."
            )


def _color_of(frame: Frame, video: Path | None) -> Color:
    if video is None or not isinstance(frame.view, VideoView):
        return Color()
    with open_container(video) as container:
        stream = container.streams.best("video") or container.streams.video[0]
        return Color.of(frame.view.image, stream.codec_context)
