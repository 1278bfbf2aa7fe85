"""Need of an object for a keyframe: an estimate of the error since the last one.

Computed while tracking, without the segmenter; the only thing taken from a keyframe is how much it
corrected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

LOOSE_WEIGHT = 0.04
"""Need added by a frame on which none of an object's points move together."""
OCCLUDED_WEIGHT = 0.3
"""Need added by a frame on which all of a mask fails the forward-backward check."""
BORDER_WEIGHT = 0.5
"""Need per border motion by rotation and scaling, in sides of a square of the object's area."""
SHIFT_WEIGHT = 0.1
"""Need per motion of an object relative to the camera, in the same unit."""
OCCLUDED_NEED = 0.05
"""Need added by a frame on which an object is occluded and may reappear."""
_NEWEST_WEIGHT = 0.5  # weight of the newest value in running means


@dataclass(frozen=True, slots=True)
class Need:
    """Need of one object, an estimate of 1 - IoU of its mask with the true one.

    due: accumulated since a keyframe last updated the object. rate: running mean of what a frame
    adds. usual: running mean of what keyframes corrected, per frame (1 - IoU of propagated and
    decoded mask, divided by the frames between). frames: since the last keyframe.
    """

    due: float = 0.0
    rate: float = 0.0
    usual: float = 0.0
    frames: int = 0

    def propagated(self, *, loose: float, occluded: float, border: float, shift: float) -> Need:
        """Need one frame later, on which the mask was propagated.

        loose: share of its points that do not move together. occluded: share of the mask that fails
        the forward-backward check. border, shift: see `BORDER_WEIGHT`, `SHIFT_WEIGHT`.
        """
        more = LOOSE_WEIGHT * loose + OCCLUDED_WEIGHT * occluded
        more += BORDER_WEIGHT * border + SHIFT_WEIGHT * shift
        return self._later(more + self.usual)

    def waited(self) -> Need:
        """Need one frame later, on which the object was occluded."""
        return self._later(OCCLUDED_NEED)

    def _later(self, more: float) -> Need:
        rate = self.rate + _NEWEST_WEIGHT * (more - self.rate)
        return replace(self, due=self.due + more, rate=rate, frames=self.frames + 1)

    def expected(self, later: int, *, looked_at: bool) -> float:
        """Need that will be due `later` frames from now.

        looked_at: a keyframe will update the object on the frame before that one.
        """
        return self.rate if looked_at else self.due + self.rate * later

    def looked_at(self, correction: float) -> Need:
        """Need after a keyframe. correction: 1 - IoU of the propagated and the decoded mask."""
        newest = correction / max(1, self.frames)
        usual = self.usual + _NEWEST_WEIGHT * (newest - self.usual)
        return Need(rate=self.rate, usual=usual)
