"""One opened session: its video, what clicks are answered with, its masks, its jobs."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskstream.pipeline.errors import MaskstreamError, PromptError
from maskstream.pipeline.exports.edges import Edges
from maskstream.pipeline.results.edits import add_object, keep_objects, prompted_object
from maskstream.pipeline.results.review import review_of
from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.sources.seekable import open_seekable
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.types import FrameResult, ObjectResult, SizeHW
from maskstream.ui.editing.clicker import BoolMap, Clicker, Segmenters
from maskstream.ui.editing.confidence_strips import confidence_strips
from maskstream.ui.editing.entries import (
    ChangedEntry,
    ClearedEntry,
    Click,
    DeletedEntry,
    PromptedEntry,
    RangeEntry,
    TrackedEntry,
)
from maskstream.ui.editing.jobs import JobPlan, Outcome, recovered
from maskstream.ui.editing.session import Session, mask_event
from maskstream.ui.editing.session_json import session_json
from maskstream.ui.editing.track_plan import Direction, done_after, plan_job, stale_stretches
from maskstream.ui.editing.tracking_task import TrackingTask
from maskstream.ui.server.images import cutout, fit_within, jpeg

_LOGITS_KEPT = 32
_SUREST = 1.01  # score of what a person gave: it lies on top


class Editor:
    """What the page asks of a session; may be called by any thread.

    revision: grows with everything that changes what the page shows.

    Raises:
        SourceError: the video is not there any more, or cannot be read.
    """

    def __init__(
        self, session: Session, segmenters: Segmenters, slots: threading.Semaphore
    ) -> None:
        self.session = session
        self.revision = time.time_ns() // 1_000_000  # grows over restarts of the server, too
        self.task: TrackingTask | None = None
        self._config = segmenters.config
        self._slots = slots
        self._lock = threading.RLock()
        self.video = open_seekable(session.source)
        self.info = self.video.info
        self._clicker = Clicker(segmenters, self.info.size_hw)
        self._logits: dict[str, FloatMap] = {}
        self._opened: tuple[Path, MaskStore, dict[int, int]] | None = None
        self._timeline: tuple[Path | None, dict[str, Any]] | None = None
        self._recover()

    def close(self) -> None:
        """Stop what runs, keep what is done, let go of the video."""
        task = self.task
        if task is not None and task.active:
            task.stop()
            task.wait(30.0)
        self.video.close()

    @property
    def busy(self) -> bool:
        """Whether something is being tracked."""
        return self.task is not None and self.task.active

    # What is shown

    @property
    def frames(self) -> range:
        """The numbers of the video's frames; of some containers how many is an estimate."""
        return self.video.numbers

    def to_json(self) -> dict[str, Any]:
        """The state of everything but pixels, as JSON values."""
        with self._lock:
            state, task = self.session.tracked_state, self.task
            stale = stale_stretches(state, self.frames)
            told = session_json(self.session, self.info, self.frames)
            return {
                "revision": self.revision,
                **told,
                "stale": [{"object": s.object, "first": s.first, "last": s.last} for s in stale],
                "job": None if task is None else task.to_json(),
            }

    def image(self, index: int, longest: int) -> bytes:
        """JPEG of a frame, its longer side at most `longest`. Raises `SourceError`."""
        return jpeg(self.video.frame(index), longest)

    def cutout(self, index: int, objects: Collection[int], edges: Edges, longest: int) -> bytes:
        """PNG RGBA of what objects cut out of a frame. Raises `SourceError`."""
        frame, result = self.video.frame(index), self.result(index)
        mask = np.zeros(self.info.size_hw, np.bool_)
        if result is not None:
            for object_id in objects:
                mask |= result.mask(object_id)
        return cutout(frame, mask, edges, longest)

    def labels(self, index: int, longest: int) -> tuple[bytes, SizeHW, Sequence[ObjectResult]]:
        """The label map of a frame as gzipped bytes [h, w], its size, and its objects."""
        result = self.result(index)
        size_hw = fit_within(self.info.size_hw, longest)
        if result is None:
            return gzip.compress(bytes(size_hw[0] * size_hw[1]), 1), size_hw, ()
        labels = result.labels.astype(np.uint8)
        if labels.shape != size_hw:
            shrunk = cv2.resize(labels, size_hw[::-1], interpolation=cv2.INTER_NEAREST)
            labels = np.asarray(shrunk, np.uint8)
        return gzip.compress(labels.tobytes(), 1), size_hw, result.objects

    def result(self, index: int) -> FrameResult | None:
        """Masks of a frame: tracked ones, and over them the prompts of this very frame."""
        with self._lock:
            state = self.session.tracked_state
            shown = self._with_live(index, self._tracked(index))
            stale = {
                pending.object
                for pending in stale_stretches(state, self.frames)
                if pending.first == pending.whole.left == index
            }
            anchors = [
                known.anchors[index]
                for known in state.objects.values()
                if index in known.anchors and (known.id in stale or shown is None)
            ]
            if shown is None:
                if not anchors:
                    return None
                empty = np.zeros(self.info.size_hw, np.uint16)
                shown = FrameResult(index, None, self.info.time_base, True, empty, ())
            ids = set(state.objects) - {anchor.object for anchor in anchors}
            shown = keep_objects(shown, ids)
            for anchor in anchors:
                if anchor.handover is None:
                    continue
                mask = self.session.masks.get(anchor.mask)
                shown = add_object(shown, prompted_object(anchor.object, mask, _SUREST), mask)
            return shown

    def timeline(self, bins: int) -> dict[str, Any]:
        """Confidence of every object over time, and what a person should look at."""
        with self._lock:
            place = self.session.store
            if self._timeline is not None and self._timeline[0] == place:
                return self._timeline[1]
            if place is None:
                values: dict[str, Any] = {"strips": {}, "doubts": []}
            else:
                store = MaskStore(place)
                values = {
                    "strips": confidence_strips(store.frame_objects(), self.frames, bins),
                    "doubts": [item.to_json() for item in review_of(store)],
                }
            self._timeline = place, values
            return values

    # What a person does

    def click(self, frame: int, click: Click, object_id: int | None) -> int:
        """A click: adds to an object, takes from it, or begins a new one; gives its number."""
        with self._lock:
            old = self._anchor(object_id, frame)
            if old is not None and old.via in ("click", "box"):
                clicks, box = (*old.clicks, click), old.box_xyxy
            else:
                clicks, box = (click,), None
            logits = None if old is None else self._logits.get(old.mask)
            prior = None if logits is not None else self._current_mask(object_id, frame)
            return self._ask(frame, object_id, clicks, box, prior, logits)

    def box(self, frame: int, box_xyxy: Sequence[float], object_id: int | None) -> int:
        """A box around an object; gives its number."""
        x0, y0, x1, y1 = box_xyxy
        return self._ask(frame, object_id, (), (x0, y0, x1, y1))

    def brush(self, frame: int, stroke: BoolMap, object_id: int | None, *, erase: bool) -> int:
        """Paint on, or erase from, the mask of an object; gives its number."""
        with self._lock:
            mask = self._current_mask(object_id, frame)
            mask = np.zeros(self.info.size_hw, np.bool_) if mask is None else mask
            painted = mask & ~stroke if erase else mask | stroke
            if not painted.any():
                raise PromptError("Nothing would be left of the mask; delete the object instead.")
            return self._give(frame, object_id, painted, "brush")

    def propose(self, frame: int) -> bytes:
        """Objects found on a frame by themselves: a label map, gzipped bytes [H, W]."""
        masks = self._clicker.proposals(self.video.frame(frame))
        labels = np.zeros(self.info.size_hw, np.uint8)
        for number, mask in enumerate(masks, start=1):
            labels[mask] = number
        return gzip.compress(labels.tobytes(), 1)

    def accept(self, frame: int, number: int) -> int:
        """Make an object of a proposal, by its number from 1; gives the object's."""
        masks = self._clicker.proposals(self.video.frame(frame))
        if not 1 <= number <= len(masks):
            raise PromptError("That proposal is not there any more.")
        return self._give(frame, None, masks[number - 1], "proposal")

    def mark_absent(self, frame: int, object_id: int) -> None:
        """Say that an object is not there from a frame on, up to its next prompt."""
        with self._lock:
            self.session.object(object_id)
            self._give(frame, object_id, np.zeros(self.info.size_hw, np.bool_), "gone")

    def choose(self, frame: int, object_id: int) -> None:
        """Take the next of the masks that the click was answered with."""
        with self._lock:
            anchor = self._anchor(object_id, frame)
            if anchor is None or len(anchor.candidates) < 2:
                raise PromptError("There is just one mask for this prompt.")
            chosen = (anchor.chosen + 1) % len(anchor.candidates)
            self.session.add(anchor.model_copy(update={"chosen": chosen}))
            self._changed()

    def change(self, entry: ChangedEntry | ClearedEntry | DeletedEntry | RangeEntry) -> None:
        """Rename, color, show, lock, clear, delete, or set the range."""
        with self._lock:
            if isinstance(entry, RangeEntry):
                last = self.frames[-1] if entry.last is None else entry.last
                if not entry.first <= last <= self.frames[-1]:
                    raise PromptError("The out point must lie after the in point.")
            self.session.add(entry)
            self._changed()

    def undo(self, *, redo: bool = False) -> None:
        """Take the last thing back, or do it again."""
        with self._lock:
            if self.task is not None and self.task.active:
                raise PromptError("Stop tracking before you undo or redo.")
            moved = self.session.redo() if redo else self.session.undo()
            if not moved:
                raise PromptError(f"There is nothing to {'redo' if redo else 'undo'}.")
            self._changed()

    def prepare(self, frame: int) -> None:
        """Encode a frame before somebody clicks on it."""
        self._clicker.prepare(self.video.frame(frame))

    # Tracking

    def track(self, direction: Direction = "both") -> None:
        """Begin to track what is stale. Raises `PromptError` if there is nothing, or it runs."""
        with self._lock:
            if self.task is not None and self.task.active:
                raise PromptError("Tracking is running already.")
            state = self.session.tracked_state
            stale = stale_stretches(state, self.frames, direction)
            if not stale:
                raise PromptError(
                    "Click on an object first."
                    if not any(o.anchors for o in state.objects.values())
                    else "Everything is tracked; click where a mask is wrong to correct it."
                )
            plan = JobPlan(
                self.session.folder,
                plan_job(state, stale, mask_event),
                tuple(stale),
                self.session.new_store(),
                state.store,
            )
            self.task = TrackingTask(
                plan, self._config, self.video, self._slots, self.session.masks, self._tracked_now
            )
            self.task.start()
            self.revision += 1

    def _tracked_now(self, plan: JobPlan, outcome: Outcome) -> None:
        with self._lock:
            state = self.session.tracked_state
            done = done_after(state, outcome.touched, outcome.done)
            entry = TrackedEntry(store=plan.store, job=outcome.job, onto=plan.onto, done=done)
            self.session.add(entry)
            self.session.drop_old_stores()
            self._changed()

    def _recover(self) -> None:
        plan = JobPlan.left_in(self.session.folder)
        if plan is None:
            return
        try:
            outcome = recovered(plan, self._config, self.info, self.session.masks)
            if outcome is not None:
                self._tracked_now(plan, outcome)
        except MaskstreamError:
            pass  # what was tracked before is there; the job's own frames are lost
        plan.forget()

    # Details

    def _tracked(self, index: int) -> FrameResult | None:
        place = self.session.store
        if place is None:
            return None
        if self._opened is None or self._opened[0] != place:
            store = MaskStore(place)
            rows = {int(number): row for row, number in enumerate(store.indices)}
            self._opened = place, store, rows
        _, store, rows = self._opened
        return store.frame(rows[index]) if index in rows else None

    def _with_live(self, index: int, shown: FrameResult | None) -> FrameResult | None:
        """Tracked masks of a frame, or what the job that runs says of it."""
        task = self.task
        live = task.live(index) if task is not None and task.active else None
        if live is None or shown is None:
            return shown if live is None else live
        fresh = {found.id for found in live.objects}
        shown = keep_objects(shown, {found.id for found in shown.objects} - fresh)
        for found in live.objects:
            shown = add_object(shown, found, live.mask(found.id))
        return shown

    def _anchor(self, object_id: int | None, frame: int) -> PromptedEntry | None:
        if object_id is None or object_id not in self.session.state.objects:
            return None
        return self.session.state.objects[object_id].anchors.get(frame)

    def _current_mask(self, object_id: int | None, frame: int) -> BoolMap | None:
        """What is shown of an object on a frame, if it shows."""
        if object_id is None:
            return None
        result = self.result(frame)
        mask = None if result is None else result.mask(object_id)
        return mask if mask is not None and mask.any() else None

    def _ask(
        self,
        frame: int,
        object_id: int | None,
        clicks: tuple[Click, ...],
        box: tuple[float, float, float, float] | None,
        prior: BoolMap | None = None,
        logits: FloatMap | None = None,
    ) -> int:
        answer = self._clicker.answer(self.video.frame(frame), clicks, box, prior, logits)
        with self._lock:
            number = self.session.next_object() if object_id is None else object_id
            names = [self.session.masks.put(mask) for mask in answer.masks]
            self._logits |= dict(zip(names, answer.logits, strict=True))
            while len(self._logits) > _LOGITS_KEPT:
                del self._logits[next(iter(self._logits))]
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

    def _give(self, frame: int, object_id: int | None, mask: BoolMap, via: Any) -> int:
        with self._lock:
            self.video.frame(frame)  # raises if there is none
            number = self.session.next_object() if object_id is None else object_id
            name = self.session.masks.put(mask)
            self.session.add(PromptedEntry(object=number, frame=frame, candidates=(name,), via=via))
            self._changed()
            return number

    def _changed(self) -> None:
        self.revision += 1
