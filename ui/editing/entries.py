"""Entries of the session log: what a person did on the page."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from maskstream.pipeline.prompts import EventRef, TrackJob

MAX_OBJECTS = 254  # the page's label maps are uint8, and 255 is reserved
MaskName = Annotated[str, Field(pattern=r"^[0-9a-f]{20}$")]
Color = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
ObjectId = Annotated[int, Field(ge=1, le=MAX_OBJECTS)]
LABEL_LENGTH = 50
Via = Literal["click", "box", "brush", "cleanup", "proposal", "gone"]
"""How a mask was made; gone: a person marked the object absent."""
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Click(_Entry):
    """A point on the object (label 1) or beside it (label 0), pixels of the displayed frame."""

    x: _Finite
    y: _Finite
    label: Literal[0, 1]


class PromptedEntry(_Entry):
    """The complete prompt of an object on a frame after a click, box or stroke.

    candidates: names of the masks that answered it, the best first; chosen: index of the one in
    use. Masks are kept, so the segmenter need not run again. scores: of the decoder's answers, also
    of those corrected since; none of other masks. via: how the mask was made; gone: it is empty,
    the object is absent from this frame up to its next prompt, unless it is found before. label:
    the class of a detection, which names the object that the entry creates.
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
    label: str = Field("", max_length=LABEL_LENGTH)

    @property
    def mask(self) -> str:
        """Name of the chosen mask."""
        return self.candidates[self.chosen % len(self.candidates)]

    @property
    def handover(self) -> Handover | None:
        """Frame and mask that tracking starts from; None if the object is absent."""
        return None if self.via == "gone" else Handover(frame=self.frame, mask=self.mask)


class ClearedEntry(_Entry):
    """Deletes the prompt of an object on a frame."""

    type: Literal["cleared"] = "cleared"
    object: ObjectId
    frame: int


class ObjectEdges(_Entry):
    """Edges of an object in exports, pixels; own: False: those of the export."""

    own: bool = True
    soft: bool = False
    feather: float = Field(0.0, ge=0, le=100)
    grow: float = Field(0.0, ge=-100, le=100)


COMMON_EDGES = ObjectEdges(own=False)


class ChangedEntry(_Entry):
    """Changes an object's appearance on the page and its edges; None leaves a field as it is."""

    type: Literal["changed"] = "changed"
    object: ObjectId
    name: str | None = Field(None, min_length=1, max_length=60)
    color: Color | None = Field(None, alias="colour")
    visible: bool | None = None
    locked: bool | None = None
    edges: ObjectEdges | None = None


class DeletedEntry(_Entry):
    """Deletes an object; its id is never reused."""

    type: Literal["deleted"] = "deleted"
    object: ObjectId


class OrderEntry(_Entry):
    """Sets how objects lie on each other, the first on top; empty: automatically."""

    type: Literal["order"] = "order"
    objects: tuple[ObjectId, ...] = Field(max_length=MAX_OBJECTS)


class ModelEntry(_Entry):
    """Chooses the model that answers clicks and tracks from here on; "": the server's own."""

    type: Literal["model"] = "model"
    model: str = Field(max_length=300)


class RangeEntry(_Entry):
    """Sets the range of frames to track and export, both inclusive; last None: to the end."""

    type: Literal["range"] = "range"
    first: int = Field(0, ge=0)
    last: int | None = Field(None, ge=0)


class TrackedEntry(_Entry):
    """Records a tracking job that has ended, and its store.

    job: what it did, as in a prompts JSON. onto: the store it was merged with. done: the segments
    that are tracked afterwards.
    """

    type: Literal["tracked"] = "tracked"
    store: str = Field(pattern=r"^masks-\d+\.zarr$")
    job: TrackJob[EventRef]
    onto: str | None = None
    done: tuple[DoneSegment, ...]


class Handover(_Entry):
    """A frame and a mask from which an object is tracked forward or backward."""

    frame: int
    mask: MaskName


class DoneSegment(_Entry):
    """A tracked segment: frames of an object between two of its prompts.

    left, right: frame indices of the prompts, None before the first and after the last one;
    left_mask, right_mask: their masks. A stopped job records where to continue: `ahead` in its
    forward pass, `back` in its backward pass (the forward pass being complete).
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
    PromptedEntry
    | ClearedEntry
    | ChangedEntry
    | DeletedEntry
    | ModelEntry
    | OrderEntry
    | RangeEntry
    | TrackedEntry,
    Field(discriminator="type"),
]
TrackedEntry.model_rebuild()
