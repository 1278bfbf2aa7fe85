"""Actions of the editing page: their JSON form, and how they are performed."""

from __future__ import annotations

from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from maskstream.pipeline.errors import PageError
from maskstream.pipeline.exports.edges import Edges
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.prompts import Quality
from maskstream.pipeline.types import SizeHW
from maskstream.ui.editing.cleanup import MAX_AREA_PX, MAX_SMOOTH_PX
from maskstream.ui.editing.clicker import BoolMap
from maskstream.ui.editing.editor import Editor
from maskstream.ui.editing.entries import (
    ChangedEntry,
    ClearedEntry,
    Click,
    DeletedEntry,
    ModelEntry,
    OrderEntry,
    RangeEntry,
)


class _Action(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClickAction(_Action):
    """A click on the selected object, or on a new one.

    frame: index of the frame that was shown; object: id, None for a new object; created: name that
    the page gives to a new object, so that two prompts do not add two; here and below.
    """

    do: Literal["click"]
    frame: int
    x: float
    y: float
    label: Literal[0, 1] = 1
    object: int | None = None
    created: str | None = None


class BoxAction(_Action):
    """A box around an object."""

    do: Literal["box"]
    frame: int
    xyxy: tuple[float, float, float, float]
    object: int | None = None
    created: str | None = None


class BrushAction(_Action):
    """A stroke along points, pixels of the displayed frame."""

    do: Literal["brush"]
    frame: int
    points: list[tuple[float, float]] = Field(min_length=1, max_length=5000)
    radius: float = Field(gt=0, le=2000)
    erase: bool = False
    object: int | None = None
    created: str | None = None


class CleanupAction(_Action):
    """Clean up the mask of an object: areas of holes and specks, smoothing, pixels of the frame."""

    do: Literal["cleanup"]
    frame: int
    object: int
    holes: int = Field(0, ge=0, le=MAX_AREA_PX)
    specks: int = Field(0, ge=0, le=MAX_AREA_PX)
    smooth: int = Field(0, ge=0, le=MAX_SMOOTH_PX)


class FrameAction(_Action):
    """An action on a frame: accept proposal `number`, or switch mask or mark absent `object`."""

    do: Literal["accept", "choose", "gone"]
    frame: int
    number: int = 0
    object: int = 0


class EntryAction(_Action):
    """An entry to append to the session log as it is."""

    do: Literal["entry"]
    entry: Annotated[
        ChangedEntry | ClearedEntry | DeletedEntry | ModelEntry | OrderEntry | RangeEntry,
        Field(discriminator="type"),
    ]


class PlainAction(_Action):
    """An action without parameters."""

    do: Literal["undo", "redo", "pause", "resume", "stop"]


class TrackAction(_Action):
    """Track the stale segments. preset: quality of the keyframes, None as configured."""

    do: Literal["track"]
    direction: Literal["both", "forward", "backward"] = "both"
    preset: Quality | None = None


Action = Annotated[
    ClickAction
    | BoxAction
    | BrushAction
    | CleanupAction
    | FrameAction
    | EntryAction
    | PlainAction
    | TrackAction,
    Field(discriminator="do"),
]
_ACTION: TypeAdapter[Action] = TypeAdapter(Action)


def parse_action(values: JsonObject) -> Action:
    """Parse an action from JSON values. Raises `PageError`."""
    try:
        return _ACTION.validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"][1:])
        raise PageError(
            f"That cannot be done: {place or 'the action'}: {problem['msg']}."
        ) from error


class OpenRequest(_Action):
    """A video to open: an example, or a path on the server."""

    example: str | None = None
    path: str | None = None


class FetchRequest(_Action):
    """A video to fetch by URL."""

    url: str


class CutoutBody(_Action):
    """Objects to cut out, and their edges (`maskstream.pipeline.exports.edges`)."""

    objects: tuple[int, ...]
    soft: bool = False
    feather: float = Field(0.0, ge=0, le=100)
    grow: float = Field(0.0, ge=-100, le=100)

    @property
    def edges(self) -> Edges:
        """Convert to `Edges`."""
        return Edges(self.soft, self.feather, self.grow)


class ExportBody(CutoutBody):
    """An export request."""

    format: str
    background: str | None = None


def perform(editor: Editor, action: Action) -> int | None:
    """Perform an action; return the id of the object it was about, if there is one.

    Raises `MaskstreamError`.
    """
    match action:
        case ClickAction() | BoxAction() | BrushAction():
            return _prompt(editor, action)
        case CleanupAction(frame=frame, object=known, holes=holes, specks=specks, smooth=smooth):
            editor.cleanup(frame, known, holes=holes, specks=specks, smooth=smooth)
            return known
        case FrameAction(do="accept"):
            return editor.accept(action.frame, action.number)
        case FrameAction(do="gone"):
            editor.mark_absent(action.frame, action.object)
            return action.object
        case FrameAction():
            editor.choose(action.frame, action.object)
            return action.object
        case EntryAction(entry=entry):
            editor.change(entry)
            return None
        case TrackAction():
            editor.track(action.direction, action.preset)
        case PlainAction(do="undo" | "redo"):
            editor.undo(redo=action.do == "redo")
        case PlainAction():
            if editor.task is not None:
                {
                    "pause": editor.task.pause,
                    "resume": editor.task.resume,
                    "stop": editor.task.stop,
                }[action.do]()
    return None


def _prompt(editor: Editor, action: ClickAction | BoxAction | BrushAction) -> int:
    frame = action.frame
    object_id = editor.created(action.created) if action.object is None else action.object
    match action:
        case ClickAction(x=x, y=y, label=label):
            object_id = editor.click(frame, Click(x=x, y=y, label=label), object_id)
        case BoxAction(xyxy=xyxy):
            object_id = editor.box(frame, xyxy, object_id)
        case BrushAction():
            stroke = _stroke(action, editor.info.size_hw)
            object_id = editor.brush(frame, stroke, object_id, erase=action.erase)
    if action.object is None and action.created is not None:
        editor.remember_created(action.created, object_id)
    return object_id


def _stroke(action: BrushAction, size_hw: SizeHW) -> BoolMap:
    """Rasterize a brush stroke to a mask, bool [H, W]."""
    painted = np.zeros(size_hw, np.uint8)
    points = np.round(np.array(action.points) * 8).astype(np.int32)
    radius = max(1, round(action.radius))
    for x, y in np.array(action.points):
        cv2.circle(painted, (int(x), int(y)), radius, 1, cv2.FILLED)
    if len(points) > 1:
        cv2.polylines(painted, [points], False, 1, 2 * radius, cv2.LINE_8, 3)
    return painted > 0
