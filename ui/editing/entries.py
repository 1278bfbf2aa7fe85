"""What a person did in the page: the entries of a session's log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from maskstream.pipeline.prompts import EventRef, TrackJob

MAX_OBJECTS = 254  # the page's label maps are bytes, and 255 is none
MaskName = Annotated[str, Field(pattern=r"^[0-9a-f]{20}$")]
Color = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
ObjectId = Annotated[int, Field(ge=1, le=MAX_OBJECTS)]
Via = Literal["click", "box", "brush", "proposal", "gone"]
"""How a mask came about; gone: somebody said that the object is not there."""
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Click(_Entry):
    """A place on the object (label 1) or beside it (label 0), pixels of the displayed frame."""

    x: _Finite
    y: _Finite
    label: Literal[0, 1]


class PromptedEntry(_Entry):
    """An object's whole prompt on a frame, as it is after this click, box or stroke.

    candidates: names of the masks it was answered with, the best first, and which is `chosen`; the
    mask is kept, so nothing has to be asked again. via: how the mask came about; gone: it is empty,
    the object is not there from this frame up to its next prompt, if it is not found before that.
    """

    type: Literal["prompted"] = "prompted"
    object: ObjectId
    frame: int = Field(ge=0)
    clicks: tuple[Click, ...] = ()
    box_xyxy: tuple[_Finite, _Finite, _Finite, _Finite] | None = None
    candidates: tuple[MaskName, ...] = Field(min_length=1)
    scores: tuple[float, ...] = ()
    chosen: int = Field(0, ge=0)
    via: Via = "click"

    @property
    def mask(self) -> str:
        """Name of the mask that counts."""
        return self.candidates[self.chosen % len(self.candidates)]

    @property
    def handover(self) -> Handover | None:
        """Where following the object begins; None if it is gone."""
        return None if self.via == "gone" else Handover(frame=self.frame, mask=self.mask)


class ClearedEntry(_Entry):
    """The object has no prompt on this frame any more."""

    type: Literal["cleared"] = "cleared"
    object: ObjectId
    frame: int


class ChangedEntry(_Entry):
    """How an object looks in the page; what is None stays."""

    type: Literal["changed"] = "changed"
    object: ObjectId
    name: str | None = Field(None, min_length=1, max_length=60)
    color: Color | None = Field(None, alias="colour")
    visible: bool | None = None
    locked: bool | None = None


class DeletedEntry(_Entry):
    """The object is not wanted; its number is never used again."""

    type: Literal["deleted"] = "deleted"
    object: ObjectId


class RangeEntry(_Entry):
    """The frames that are tracked and exported, both included; None: to the end."""

    type: Literal["range"] = "range"
    first: int = Field(0, ge=0)
    last: int | None = Field(None, ge=0)


class TrackedEntry(_Entry):
    """A tracking job has ended and left a store.

    job: what it did, as in a prompts file. onto: the store it was joined with.
    done: what it leaves tracked.
    """

    type: Literal["tracked"] = "tracked"
    store: str = Field(pattern=r"^masks-\d+\.zarr$")
    job: TrackJob[EventRef]
    onto: str | None = None
    done: tuple[DoneSegment, ...]


class Handover(_Entry):
    """A frame and a mask from which an object is followed on, or back."""

    frame: int
    mask: MaskName


class DoneSegment(_Entry):
    """Frames of an object between two of its prompts that are tracked as these masks say.

    left, right: the frames of the prompts, None beyond the first and the last one. A job that was
    stopped leaves where it goes on: ahead, if it was on its way forward, or back, if it was on its
    way backward (and forward as far as it has to go).
    """

    object: ObjectId
    first: int
    last: int
    left: int | None = None
    right: int | None = None
    left_mask: str | None = None
    right_mask: str | None = None
    ahead: Handover | None = None
    back: Handover | None = None


Entry = Annotated[
    PromptedEntry | ClearedEntry | ChangedEntry | DeletedEntry | RangeEntry | TrackedEntry,
    Field(discriminator="type"),
]
TrackedEntry.model_rebuild()
