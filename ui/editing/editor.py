"""An open session: its video, the segmenter that answers clicks, and its tracking jobs."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np

from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.prompts import Quality
from maskstream.pipeline.segmenter.corrections import Correction, PixelClick
from maskstream.pipeline.sources.seekable import open_seekable
from maskstream.pipeline.types import FrameResult
from maskstream.ui.editing.cleanup import clean
from maskstream.ui.editing.clicker import BoolMap, Found, Segmenters
from maskstream.ui.editing.entries import (
    LABEL_LENGTH,
    ChangedEntry,
    ClearedEntry,
    Click,
    DeletedEntry,
    ModelEntry,
    OrderEntry,
    PromptedEntry,
    RangeEntry,
    Via,
)
from maskstream.ui.editing.final_masks import FinalMasks
from maskstream.ui.editing.session import Session
from maskstream.ui.editing.session_json import SessionView
from maskstream.ui.editing.session_models import SessionModels
from maskstream.ui.editing.session_tracking import SessionTracking
from maskstream.ui.editing.shown import ShownMasks
from maskstream.ui.editing.slots import JobSlots
from maskstream.ui.editing.track_plan import (
    Direction,
    stale_segments,
)
from maskstream.ui.editing.tracking_task import TrackingTask

_CREATED_KEPT = 64
_SAME_OBJECT_MIN = 0.1  # share of an object's mask inside a box that is about the object
_FRAME_TABLE = "frames.npz"


class Editor:
    """Operations of the page on a session; may be called by any thread.

    revision: increases with every change of what the page shows. shown: renders the pixels. models:
    those that the session may choose.

    Raises:
        SourceError: the video no longer exists, or cannot be read.
    """

    def __init__(
        self,
        session: Session,
        segmenters: Segmenters,
        slots: JobSlots,
        offered: Mapping[str, Segmenters] | None = None,
    ) -> None:
        self.session = session
        self.revision = time.time_ns() // 1_000_000  # increases over restarts of the server, too
        self._lock = threading.RLock()
        self.video = open_seekable(session.source, session.folder / _FRAME_TABLE)
        self.info = self.video.info
        self._created: dict[str, int] = {}
        self.models = SessionModels(session, {"": segmenters, **(offered or {})}, self.info.size_hw)
        self._tracking = SessionTracking(
            session, self.video, self.models, slots, self._lock, self._changed
        )
        self.shown = ShownMasks(session, self.video, self._lock, self._tracking.live)

    def close(self) -> None:
        """Stop tracking, keep finished frames, and close the video."""
        self._tracking.close()
        self.video.close()

    @property
    def task(self) -> TrackingTask | None:
        """The running tracking job, or the last one."""
        return self._tracking.task

    @property
    def busy(self) -> bool:
        """Whether a tracking job is running."""
        return self._tracking.busy

    # State

    @property
    def frames(self) -> range:
        """Frame indices of the video; the count is an estimate for some containers."""
        return self.video.numbers

    def view(self) -> SessionView:
        """The state of the session, without pixels."""
        with self._lock:
            state, task = self.session.tracked_state, self.task
            stale = stale_segments(state, self.frames)
            return SessionView.of(
                self.session,
                self.info,
                self.frames,
                count_known=self.video.count_known,
                revision=self.revision,
                stale=stale,
                job=None if task is None else task.progress(),
                masks=FinalMasks.of(state, stale, self.info, self.session.masks).fingerprint,
                seconds=self._tracking.seconds(stale),
            )

    def final_masks(self) -> FinalMasks:
        """The masks as they are shown now, and exported."""
        return self.shown.final_masks()

    def to_json(self) -> JsonObject:
        """The state of the session as JSON values, without pixels."""
        return self.view().to_json()

    def result(self, index: int) -> FrameResult | None:
        """Masks of a frame: tracked ones, overlaid with the prompted masks of that frame."""
        return self.shown.result(index)

    # Actions of a person

    def click(self, frame: int, click: Click, object_id: int | None) -> int:
        """Add to an object, subtract from it, or create one by a click; return the object id.

        An object that has a mask on the frame is corrected near the click
        (`maskstream.pipeline.segmenter.corrections`).
        """
        with self._lock:
            correction = self._correction(frame, click, object_id)
            if correction is None or object_id is None:
                return self._prompt(frame, object_id, (click,), None)
            mask = self.models.clicker.correct(self.video.frame(frame), correction)
            name = self.session.masks.put(mask)
            old = self._clicked(object_id, frame)
            if old is None:
                old = PromptedEntry(object=object_id, frame=frame, candidates=(name,))
            corrected = {"clicks": (*old.clicks, click), "candidates": (name,), "chosen": 0}
            self.session.add(old.model_copy(update=corrected))
            self._changed()
            return object_id

    def preview(self, frame: int, click: Click, object_id: int | None) -> BoolMap | None:
        """The mask bool [H, W] that a click would give, without recording it and without waiting.

        None if the frame is not encoded yet, or a click is being answered. Raises `PromptError`.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            correction = self._correction(frame, click, object_id)
        finally:
            self._lock.release()
        return self.models.clicker.preview(frame, correction or click)

    def box(self, frame: int, box_xyxy: Sequence[float], object_id: int | None) -> int:
        """Prompt an object by a box; return the object id.

        A box beside the object's mask on the frame adds a new object. Clicks on the frame stay part
        of the prompt, but those on the object that lie outside the box.
        """
        x0, y0, x1, y1 = box_xyxy
        with self._lock:
            mask = self._current_mask(object_id, frame)
            if mask is not None and _share_inside(mask, box_xyxy) < _SAME_OBJECT_MIN:
                object_id = None
            old = self._anchor(object_id, frame)
            clicks = () if old is None else old.clicks
            kept = tuple(c for c in clicks if not c.label or (x0 <= c.x <= x1 and y0 <= c.y <= y1))
            return self._prompt(frame, object_id, kept, (x0, y0, x1, y1))

    def created(self, name: str | None) -> int | None:
        """Id of the object that the page added under this name, if it is there."""
        object_id = None if name is None else self._created.get(name)
        return object_id if object_id in self.session.state.objects else None

    def remember_created(self, name: str, object_id: int) -> None:
        """Remember under which name the page added an object."""
        self._created[name] = object_id
        while len(self._created) > _CREATED_KEPT:
            del self._created[next(iter(self._created))]

    def brush(self, frame: int, stroke: BoolMap, object_id: int | None, *, erase: bool) -> int:
        """Paint on, or erase from, the mask of an object; return the object id."""
        with self._lock:
            mask = self._current_mask(object_id, frame)
            mask = np.zeros(self.info.size_hw, np.bool_) if mask is None else mask
            painted = mask & ~stroke if erase else mask | stroke
            if not painted.any():
                raise PromptError("Nothing would be left of the mask; delete the object instead.")
            return self._add_mask(frame, object_id, painted, "brush")

    def cleanup(
        self, frame: int, object_id: int, *, holes: int = 0, specks: int = 0, smooth: int = 0
    ) -> None:
        """Clean up the mask of an object on a frame (`maskstream.ui.editing.cleanup.clean`)."""
        with self._lock:
            known = self.session.object(object_id)
            mask = self._current_mask(object_id, frame)
            if mask is None:
                raise PromptError(f"“{known.name}” has no mask on this frame to clean up.")
            cleaned = clean(mask, holes=holes, specks=specks, smooth=smooth)
            if (cleaned == mask).all():
                raise PromptError("There is nothing to clean up with these values.")
            self._add_mask(frame, object_id, cleaned, "cleanup")

    def propose(self, frame: int) -> tuple[bytes, list[Found]]:
        """Find proposals on a frame, and their label map, gzipped bytes [H, W]."""
        found = self.models.clicker.proposals(self.video.frame(frame))
        labels = np.zeros(self.info.size_hw, np.uint8)
        for number, proposal in enumerate(found, start=1):
            labels[proposal.mask] = number
        return gzip.compress(labels.tobytes(), 1), found

    def accept(self, frame: int, number: int) -> int:
        """Create an object from proposal `number` (from 1); return the object id."""
        found = self.models.clicker.proposals(self.video.frame(frame))
        if not 1 <= number <= len(found):
            raise PromptError("That proposal no longer exists.")
        chosen = found[number - 1]
        return self._add_mask(frame, None, chosen.mask, "proposal", chosen.label[:LABEL_LENGTH])

    def mark_absent(self, frame: int, object_id: int) -> None:
        """Mark an object absent from a frame on, up to its next prompt."""
        with self._lock:
            self.session.object(object_id)
            self._add_mask(frame, object_id, np.zeros(self.info.size_hw, np.bool_), "gone")

    def choose(self, frame: int, object_id: int) -> None:
        """Switch to the next of the masks that answered the click."""
        with self._lock:
            anchor = self._anchor(object_id, frame)
            if anchor is None or len(anchor.candidates) < 2:
                raise PromptError("There is just one mask for this prompt.")
            chosen = (anchor.chosen + 1) % len(anchor.candidates)
            self.session.add(anchor.model_copy(update={"chosen": chosen}))
            self._changed()

    def change(
        self,
        entry: ChangedEntry | ClearedEntry | DeletedEntry | ModelEntry | OrderEntry | RangeEntry,
    ) -> None:
        """Apply an entry: to an object, to the order, the range or the model."""
        with self._lock:
            if isinstance(entry, RangeEntry):
                last = self.frames[-1] if entry.last is None else entry.last
                if not entry.first <= last <= self.frames[-1]:
                    raise PromptError("The out point must lie after the in point.")
            if isinstance(entry, ModelEntry) and entry.model not in self.models:
                raise PromptError(f"This server does not offer the model {entry.model}.")
            self.session.add(entry)
            self._changed()

    def undo(self, *, redo: bool = False) -> None:
        """Undo the last action, or redo it."""
        with self._lock:
            if self.busy:
                raise PromptError("Stop tracking before you undo or redo.")
            moved = self.session.redo() if redo else self.session.undo()
            if not moved:
                raise PromptError(f"There is nothing to {'redo' if redo else 'undo'}.")
            self._changed()

    def prepare(self, frame: int) -> None:
        """Encode a frame before the first click on it."""
        self.models.clicker.prepare(self.video.frame(frame))

    def track(self, direction: Direction = "both", quality: Quality | None = None) -> None:
        """Start tracking the stale segments. Raises `PromptError` if it cannot start."""
        self._tracking.start(direction, quality)

    # Helpers

    def _anchor(self, object_id: int | None, frame: int) -> PromptedEntry | None:
        if object_id is None or object_id not in self.session.state.objects:
            return None
        return self.session.state.objects[object_id].anchors.get(frame)

    def _current_mask(self, object_id: int | None, frame: int) -> BoolMap | None:
        """The visible mask of an object on a frame, if there is one."""
        return None if object_id is None else self.shown.mask(frame, object_id)

    def _clicked(self, object_id: int | None, frame: int) -> PromptedEntry | None:
        """The prompt of an object on a frame, if it is one of clicks or a box."""
        anchor = self._anchor(object_id, frame)
        return anchor if anchor is not None and anchor.via in ("click", "box") else None

    def _correction(self, frame: int, click: Click, object_id: int | None) -> Correction | None:
        """What a click does to the visible mask of an object; None if it has none."""
        mask = self._current_mask(object_id, frame)
        if mask is None:
            return None
        old = self._clicked(object_id, frame)
        earlier = () if old is None else tuple(self._pixel(c) for c in old.clicks)
        is_answer = old is not None and bool(old.scores)
        return Correction(mask, self._pixel(click), earlier, is_answer)

    def _pixel(self, click: Click) -> PixelClick:
        """A click as a pixel. Raises `PromptError` if it lies outside the frame."""
        height, width = self.info.size_hw
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise PromptError(f"A click lies outside the frame of {width}x{height} pixels.")
        return PixelClick(int(click.x), int(click.y), click.label == 1)

    def _prompt(
        self,
        frame: int,
        object_id: int | None,
        clicks: tuple[Click, ...],
        box: tuple[float, float, float, float] | None,
    ) -> int:
        answer = self.models.clicker.answer(self.video.frame(frame), clicks, box)
        with self._lock:
            number = self.session.next_object() if object_id is None else object_id
            names = [self.session.masks.put(mask) for mask in answer.masks]
            entry = PromptedEntry(
                object=number,
                frame=frame,
                clicks=clicks,
                box_xyxy=box,
                candidates=tuple(names),
                scores=answer.scores,
                via="click" if box is None else "box",
            )
            self.session.add(entry)
            self._changed()
            return number

    def _add_mask(
        self, frame: int, object_id: int | None, mask: BoolMap, via: Via, label: str = ""
    ) -> int:
        with self._lock:
            self.video.frame(frame)  # raises if there is no such frame
            number = self.session.next_object() if object_id is None else object_id
            name = self.session.masks.put(mask)
            entry = PromptedEntry(
                object=number, frame=frame, candidates=(name,), via=via, label=label
            )
            self.session.add(entry)
            self._changed()
            return number

    def _changed(self) -> None:
        self.revision += 1


def _share_inside(mask: BoolMap, box_xyxy: Sequence[float]) -> float:
    """Share of a mask that lies inside a box."""
    x0, y0, x1, y1 = (max(0, round(value)) for value in box_xyxy)
    return float(mask[y0:y1, x0:x1].sum() / max(1, mask.sum()))
