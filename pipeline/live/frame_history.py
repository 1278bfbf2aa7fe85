"""History of shown frames: finds the frame a command refers to, and the motion since."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.live.commands import Command
from maskstream.pipeline.live.deferred_keyframes import MAX_PROPAGATED_FRAMES, FrameStep, ShownFrame
from maskstream.pipeline.live.headers import Stamps, stamp_ns

_SAME_FRAME_S = 0.001  # a timestamp in JSON may have lost its last digits
_MAX_AHEAD_S = 10.0  # of the newest frame; a command for a later one is an error


class FrameHistory:
    """The last `kept` frames, and the steps since the oldest one that is still needed.

    stamps: which time a command's `stamp_s` is.

    A frame that a command refers to is kept by the command until its keyframe has run.
    """

    def __init__(self, kept: int, stamps: Stamps = "capture") -> None:
        self._stamps: Stamps = stamps
        self._frames: deque[ShownFrame] = deque(maxlen=kept)
        self._steps: deque[FrameStep] = deque(maxlen=max(kept, MAX_PROPAGATED_FRAMES))

    def add(self, shown: ShownFrame, wanted: Iterable[ShownFrame]) -> None:
        """Append the frame shown now. wanted: earlier frames whose keyframes have not run yet."""
        self._frames.append(shown)
        self._steps.append(shown.step)
        oldest = min(each.number for each in (self._frames[0], *wanted))
        while len(self._steps) > shown.number - oldest:
            self._steps.popleft()

    def since(self, shown: ShownFrame) -> Sequence[FrameStep] | None:
        """Return the steps from a frame to the newest; None if they are no longer kept."""
        count = self._frames[-1].number - shown.number
        if count > len(self._steps):
            return None
        return list(self._steps)[len(self._steps) - count :]

    def resolve(self, command: Command) -> ShownFrame | None:
        """Find the frame that a command refers to; None if it has not arrived yet.

        Raises `PromptError` if there is no such frame.
        """
        times: list[float | None]
        if command.pts_s is not None:
            wanted, times = command.pts_s, [m.frame.pts_s for m in self._frames]
        elif command.stamp_s is not None:
            wanted = command.stamp_s
            times = [stamp_ns(m.frame, self._stamps) / 1e9 for m in self._frames]
        elif command.captured_s is not None:
            arrivals = [m.frame.arrival for m in self._frames]
            wanted, times = command.captured_s, [a.unix_s if a else None for a in arrivals]
        else:
            return self._frames[-1]
        known = [(t, m) for t, m in zip(times, self._frames, strict=True) if t is not None]
        if not known:
            raise PromptError("the frames of this source have no such timestamps; omit the time")
        first, last = min(t for t, _ in known), max(t for t, _ in known)
        if wanted > last + _MAX_AHEAD_S:
            raise PromptError(
                f"there is no frame at {wanted:.3f} s yet, the newest is at {last:.3f} s"
            )
        if wanted > last + _SAME_FRAME_S:
            return None
        if wanted < first - _SAME_FRAME_S:
            raise PromptError(
                f"the frame at {wanted:.3f} s is no longer kept; the last {len(known)} frames, "
                f"from {first:.3f} s on, are (live.history_frames)"
            )
        return min(known, key=lambda pair: abs(pair[0] - wanted))[1]
