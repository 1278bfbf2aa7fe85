"""Times of decoded pictures, in presentation order."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from av.video.frame import VideoFrame

# Containers, by FFmpeg's names, that state only when a picture is decoded: their presentation times
# are guesses, and so are durations and the number of frames, as ticks may be left out.
DECODING_TIMES_ONLY = frozenset({"avi"})
# Of containers whose clock may start anew within a file (FFmpeg: AVFMT_TS_DISCONT).
_RESTARTING = frozenset({"mpegts", "mpeg"})
# As FFmpeg's `-dts_delta_threshold`: a longer step forward is a clock that starts anew.
_FORWARD_MAX_S = 10
_BACKWARD_MAX_S = 1


class Stamp(NamedTuple):
    """Time of a frame. pts, duration: ticks of the stream. jump_s: as in `Frame`."""

    pts: int | None
    duration: int | None
    jump_s: float = 0.0


class PresentationClock:
    """Gives pictures, in presentation order, times that increase.

    The container's presentation times are kept where they increase. As in FFmpeg, decoding times
    replace them where these are in better order (AVI states no others), and elementary streams
    without times count by the frame rate. Where a recording starts anew, which shows as a jump of
    more than a second back, of ten seconds forward in MPEG-TS and MPEG-PS, or to or before the
    first time, times go on from the last frame and the jump is reported. Any other time that does
    not increase is one tick after the last and counted in `disordered`.

    time_base: unit of the times, seconds. rate: frames per second, if known. container: FFmpeg's
    names of the format, separated by commas. interval: between frames, in ticks, if known.
    """

    def __init__(self, time_base: Fraction, rate: Fraction | None, container: str) -> None:
        names = set(container.split(","))
        self.disordered = 0
        self._time_base = time_base
        self.interval = max(1, round(1 / (rate * time_base))) if rate else None
        self._decoding_times = bool(names & DECODING_TIMES_ONLY)
        self._restarts = bool(names & _RESTARTING)
        self._faults = {"pts": 0, "dts": 0}
        self._latest: dict[str, int] = {}
        self._first: int | None = None  # of this recording, before it is rebased
        self._raw: int | None = None  # of the last picture, before it is rebased
        self._shift = 0
        self._last: Stamp | None = None

    def stamp(self, picture: VideoFrame) -> Stamp:
        """Time of the next picture."""
        duration = (not self._decoding_times and picture.duration) or self.interval
        raw = self._choose(picture)
        if raw is None:
            self._last = Stamp(self._follow(), duration)
            return self._last
        jump = 0 if self._raw is None else self._restart(raw)
        if jump:
            following = self._follow()
            assert following is not None  # noqa: S101 - a restart has a picture before it
            self._shift, self._first = following - raw, raw
        elif self._first is None:
            self._first = raw
        self._raw = raw
        pts = raw + self._shift
        if self._last is not None and self._last.pts is not None and pts <= self._last.pts:
            self.disordered += 1
            pts = self._last.pts + 1
        self._last = Stamp(pts, duration, float(jump * self._time_base))
        return self._last

    def _follow(self) -> int | None:
        """The time that follows on the last picture; None where no duration is known."""
        last = self._last
        if last is None:
            return 0 if self.interval is not None else None
        return None if last.pts is None else last.pts + (last.duration or 1)

    def _choose(self, picture: VideoFrame) -> int | None:
        """Presentation or decoding time, whichever is in better order (FFmpeg's best effort)."""
        if self._decoding_times:
            return picture.dts
        for name, value in (("pts", picture.pts), ("dts", picture.dts)):
            if value is not None:
                self._faults[name] += value <= self._latest.get(name, value - 1)
                self._latest[name] = value
        if picture.pts is None or picture.dts is None:
            return picture.dts if picture.pts is None else picture.pts
        return picture.pts if self._faults["pts"] <= self._faults["dts"] else picture.dts

    def _restart(self, raw: int) -> int:
        """By how many ticks the recording jumped if it starts anew with this time, else 0."""
        assert self._raw is not None  # noqa: S101
        assert self._first is not None  # noqa: S101
        step = raw - self._raw
        back = -step * self._time_base
        if back > _BACKWARD_MAX_S or (step < 0 and raw <= self._first):
            return step
        if self._restarts and step * self._time_base > _FORWARD_MAX_S:
            return step
        return 0
