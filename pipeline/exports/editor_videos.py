"""Exporters of videos: with alpha, mattes, composites over a background, overlays."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.exports.backgrounds import background_of
from maskstream.pipeline.exports.canvases import Canvas, Composite
from maskstream.pipeline.exports.frames import ExportFrame
from maskstream.pipeline.exports.job import ExportJob
from maskstream.pipeline.exports.mastering import x264_mastering
from maskstream.pipeline.exports.movie import Clock, Encoding, MovieReader, MovieWriter
from maskstream.pipeline.exports.shots import Shot, Shots
from maskstream.pipeline.exports.source_video import SourceVideo
from maskstream.pipeline.types import Frame

_PQ = 16  # transfer characteristics, ITU-T H.273
PRORES = Encoding("prores_ks", {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"})
VP9 = Encoding(
    "libvpx-vp9",
    {"crf": "24", "b": "0", "cpu-used": "4", "deadline": "good", "auto-alt-ref": "0"},
    decoder="libvpx-vp9",  # FFmpeg's native decoder ignores alpha
)
FFV1 = Encoding("ffv1", {"level": "3", "slices": "4", "slicecrc": "1"})
# No B-frames: with variable frame rates they make the file's duration too short.
H264 = Encoding("libx264", {"crf": "16", "preset": "veryfast", "bf": "0"})
# By default x264 spends few bits on hard edges, but a matte has nothing else.
H264_MATTE = Encoding("libx264", {"qp": "6", "preset": "veryfast", "bf": "0"})


class _StorePass:
    """One pass over store and video: shots with their timestamps."""

    def __init__(self, job: ExportJob, *, each: bool) -> None:
        self.source_video = SourceVideo(job)
        self.shots = Shots(job, source_video=self.source_video, each=each)
        self._keep_start = job.keep_start
        self._clock: Clock | None = None

    @property
    def clock(self) -> Clock:
        """The clock, started by the first frame. Raises `StoreError` before that."""
        if self._clock is None:
            raise StoreError("The export has no frame.")
        return self._clock

    def stamp(self, frame: Frame) -> int:
        """Timestamp of the next frame."""
        if self._clock is None:
            first, rate = self.source_video.first, self.source_video.rate
            self._clock = Clock(
                frame,
                first,
                rate,
                keep_start=self._keep_start,
                timecode=self.source_video.timecode_at(frame.index),
            )
        return self._clock.stamp(frame)


class Movie:
    """Writes one video; on reading back every frame is painted again and compared."""

    def __init__(self, job: ExportJob, encoding: Encoding, canvas: Canvas) -> None:
        self._job = job
        self._encoding = encoding
        self._canvas = canvas
        with ExitStack() as opening:
            self._pass = _StorePass(job, each=canvas.each)
            opening.callback(self._pass.source_video.close)
            self._color = canvas.color(self._pass.source_video.color)
            self._writer = MovieWriter(
                job.output.path,
                self._with_mastering(encoding),
                rate=self._pass.source_video.rate,
                sound=self._pass.source_video.sound,
                field_order=self._pass.source_video.field_order,
                restarts_s=self._pass.source_video.restarts_s,
            )
            opening.pop_all()
        self._reader: MovieReader | None = None

    def _with_mastering(self, encoding: Encoding) -> Encoding:
        """The encoding with the source's mastering data, if pictures stay in its HDR (PQ)."""
        if encoding.codec != "libx264" or self._color.transfer != _PQ:
            return encoding
        stated = x264_mastering(self._pass.source_video.first)
        options = {**encoding.options} | ({"x264-params": stated} if stated else {})
        return replace(encoding, options=options)

    @classmethod
    def before_background(cls, job: ExportJob) -> Movie:
        """Composite the objects over `job.background`."""
        background = background_of(job.background, job.source.size_hw)
        return cls(job, H264, Composite(background))

    def write(self, frame: ExportFrame) -> None:
        """Add a frame; paint and encode the frames that are complete now. Raises `OSError`."""
        for shot in self._pass.shots.push(frame):
            pts = self._pass.stamp(shot.source)
            shown = self._pass.source_video.duration(shot.source)
            duration = shown or self._pass.clock.frame_ticks
            image = self._canvas.paint(shot, self._color)
            self._writer.write(image, pts, duration, self._pass.clock, self._color)

    def finish(self) -> None:
        """Close the file and open it for reading. Raises `OSError`."""
        self._writer.finish(self._pass.clock, to_the_end=self._pass.source_video.ended())
        self._pass.source_video.close()
        self._pass = _StorePass(self._job, each=self._canvas.each)
        self._reader = MovieReader(self._job.output.path, self._encoding)

    def check(self, frame: ExportFrame) -> float:
        """Compare the next frames and their timestamps; none may follow the last."""
        worst = min((self._similarity(shot) for shot in self._pass.shots.push(frame)), default=1.0)
        is_last = frame.row == len(self._job.numbers) - 1
        if is_last and self._reader is not None and self._reader.next() is not None:
            return 0.0
        return worst

    def close(self) -> None:
        """Close all files."""
        self._writer.close()
        self._pass.source_video.close()
        if self._reader is not None:
            self._reader.close()

    def _similarity(self, shot: Shot) -> float:
        expected_s = self._pass.stamp(shot.source) * self._pass.clock.time_base
        if shot.source.pts is not None:  # the source's own time
            expected_s = shot.source.pts * shot.source.time_base - self._pass.clock.origin_s
        read = None if self._reader is None else self._reader.next()
        if self._reader is None or read is None or read.pts is None:
            return 0.0
        # Matroska's timestamps are in milliseconds.
        off_s: Fraction = abs(read.pts * self._reader.time_base - expected_s)
        if off_s > self._reader.time_base / 2:
            return 0.0
        return self._canvas.similarity(read, self._canvas.paint(shot, self._color), shot)
