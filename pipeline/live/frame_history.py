"""The last frames that were shown: which of them a command means, and the motion since."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.live.commands import Command
from maskstream.pipeline.live.deferred_keyframes import MAX_PROPAGATED_FRAMES, FrameStep, ShownFrame

_SAME_FRAME_S = 0.001  # a stamp in JSON may have lost its last digits
_MAX_AHEAD_S = 10.0  # of the newest frame; a command that names a later one is mistaken


class FrameHistory:
    """The last `kept` frames, and the steps since the oldest that somebody wants.

    A frame that a command has named is kept by whoever waits for its keyframe.
    """

    def __init__(self, kept: int) -> None:
        self._frames: deque[ShownFrame] = deque(maxlen=kept)
        self._steps: deque[FrameStep] = deque(maxlen=max(kept, MAX_PROPAGATED_FRAMES))

    def add(self, shown: ShownFrame, wanted: Iterable[ShownFrame]) -> None:
        """Take the frame that is shown now; `wanted`: earlier ones, not yet worked on."""
        self._frames.append(shown)
        self._steps.append(shown.step)
        oldest = min(each.number for each in (self._frames[0], *wanted))
        while len(self._steps) > shown.number - oldest:
            self._steps.popleft()

    def since(self, shown: ShownFrame) -> Sequence[FrameStep] | None:
        """The steps from a frame to the newest; None if they are too many to be kept."""
        count = self._frames[-1].number - shown.number
        if count > len(self._steps):
            return None
        return list(self._steps)[len(self._steps) - count :]

    def resolve(self, command: Command) -> ShownFrame | None:
        """The frame that a command means, None if it has not come yet.

        Raises `PromptError` that says why there is none.
        """
        if command.pts_s is not None:
            wanted, times = command.pts_s, [m.frame.pts_s for m in self._frames]
        elif command.captured_s is not None:
            arrivals = [m.frame.arrival for m in self._frames]
            wanted, times = command.captured_s, [a.unix_s if a else None for a in arrivals]
        else:
            return self._frames[-1]
        known = [(t, m) for t, m in zip(times, self._frames, strict=True) if t is not None]
        if not known:
            raise PromptError("the frames of this source have no such times; leave the time out")
        first, last = min(t for t, _ in known), max(t for t, _ in known)
        if wanted > last + _MAX_AHEAD_S:
            raise PromptError(
                f"there is no frame at {wanted:.3f} s yet, the newest is at {last:.3f} s"
            )
        if wanted > last + _SAME_FRAME_S:
            return None
        if wanted < first - _SAME_FRAME_S:
            raise PromptError(
                f"the frame at {wanted:.3f} s is gone; the last {len(known)} frames, from "
                f"{first:.3f} s on, are kept (live.history_frames)"
            )
        return min(known, key=lambda pair: abs(pair[0] - wanted))[1]
