"""How much an object needs to be looked at: what may have gone wrong since a keyframe did.

Known while tracking, without the segmenter: nothing here depends on how a keyframe answers except
what it corrected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

LOOSE_WEIGHT = 0.04
"""Need of a frame on which none of an object's points move together."""
HIDDEN_WEIGHT = 0.3
"""Need of a frame on which all of a mask fails the forward-backward check."""
BORDER_WEIGHT = 0.5
"""Need by how far turning and growing moved an object's border, in sides of a square of its
area."""
SHIFT_WEIGHT = 0.1
"""Need by how far an object moved beside the camera, in the same sides."""
UNSEEN = 0.05
"""Need of a frame on which an object is hidden and may be seen again at any time."""
_RATE = 0.5  # share of the newest in what is usual


@dataclass(frozen=True, slots=True)
class Need:
    """Of one object, roughly 1 - IoU that its mask may have lost.

    due: collected since a keyframe looked at the object. usual: what keyframes corrected, a frame
    (1 - IoU of the carried mask and the answer, by the frames between). frames: since then. rate:
    what a frame adds lately.
    """

    due: float = 0.0
    rate: float = 0.0
    usual: float = 0.0
    frames: int = 0

    def propagated(self, *, loose: float, hidden: float, border: float, shift: float) -> Need:
        """A frame later.

        loose: share of its points that do not move together. hidden: share of the mask where the
        flow's two directions contradict each other. border, shift: `BORDER_WEIGHT`, `SHIFT_WEIGHT`.
        """
        more = LOOSE_WEIGHT * loose + HIDDEN_WEIGHT * hidden
        more += BORDER_WEIGHT * border + SHIFT_WEIGHT * shift
        return self._later(more + self.usual)

    def waited(self) -> Need:
        """A frame later, on which the object was hidden."""
        return self._later(UNSEEN)

    def _later(self, more: float) -> Need:
        rate = self.rate + _RATE * (more - self.rate)
        return replace(self, due=self.due + more, rate=rate, frames=self.frames + 1)

    def expected(self, later: int, *, looked_at: bool) -> float:
        """What will be due so many frames from now.

        looked_at: a keyframe will have looked at the object on the frame before that one.
        """
        return self.rate if looked_at else self.due + self.rate * later

    def looked_at(self, correction: float) -> Need:
        """After a keyframe. correction: 1 - IoU of the carried mask and what it answered."""
        newest = correction / max(1, self.frames)
        usual = self.usual + _RATE * (newest - self.usual)
        return Need(rate=self.rate, usual=usual)
