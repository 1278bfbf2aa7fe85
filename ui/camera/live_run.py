"""A camera that is watched: a live run, what the page shows of it, clicks that act on it.

What a live run does is `maskstream.pipeline.live`'s; here is only what a page needs beside it: the
newest result for whoever waits for it, answers to clicks, an end when nobody looks any more.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.errors import MaskstreamError, PromptError, StoreError
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.live.commands import Command, Outcome
from maskstream.pipeline.live.live_store import writer_opener
from maskstream.pipeline.live.session import CallbackSink, LiveResult, LiveSession
from maskstream.pipeline.live.status import LiveStatus
from maskstream.pipeline.types import Sink, SourceInfo
from maskstream.ui.camera.recorder import Recorder
from maskstream.ui.editing.entries import MAX_OBJECTS

logger = logging.getLogger(__name__)

ABANDONED_S = 60.0
"""After nobody has looked for so long a run ends."""
_ANSWER_S = 20.0  # that a click waits for its keyframe
_ENDED = "The camera has ended; begin anew."


@dataclass(frozen=True, slots=True)
class _Seen:
    """A frame that was shown. captured_s: its time by the capture clock. ids: of its objects."""

    index: int
    captured_s: float
    ids: frozenset[int]


class LiveRun:
    """A session that runs and is watched. status: starting, running, ended, failed.

    folder: for recordings. on_stop: called when it is to end. clock: the session's.
    """

    def __init__(
        self,
        session: LiveSession,
        folder: Path,
        *,
        on_stop: Callable[[], None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.status = "starting"
        self.message = ""
        self._session = session
        self._folder = folder
        self._on_stop = on_stop
        self._clock = clock
        self._changed = threading.Condition()
        self._shown: LiveResult | None = None
        self._seen: deque[_Seen] = deque(maxlen=session.pipeline.config.live.history_frames)
        self._known: set[int] = set()
        self._begun = 0  # objects asked for, the refused included
        self._recorder: Recorder | None = None
        self._looked_s = clock.monotonic()
        self._thread = threading.Thread(target=self._run, name="maskstream-watch", daemon=True)
        self._thread.start()

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.status in ("starting", "running")

    @property
    def recording(self) -> Path | None:
        """The newest recording that is finished."""
        recorder = self._recorder
        return None if recorder is None or recorder.recording else recorder.newest

    def stop(self) -> None:
        """End it with the next frame; what was recorded is kept."""
        self._session.stop()
        self._on_stop()

    def wait(self, timeout_s: float | None = None) -> None:
        """Until it has ended."""
        self._thread.join(timeout_s)

    def click(
        self, frame: int, xy: tuple[float, float], label: int, object_id: int | None
    ) -> int | None:
        """A click on a frame that was shown: on an object (1), beside it (0), or on a new one.

        Waits until it is answered and gives the object's number; None while no frame comes that it
        could act on. Raises `PromptError`.
        """
        seen = self._frame(frame, object_id)
        if not label and object_id not in seen.ids:
            raise PromptError("Click on the object first, then on what does not belong to it.")
        return self._ask(
            Command(
                type="point",
                object=object_id,
                xy=xy,
                label=1 if label else 0,
                captured_s=seen.captured_s,
            )
        )

    def box(
        self, frame: int, box_xyxy: tuple[float, float, float, float], object_id: int | None
    ) -> int | None:
        """A box around an object of a frame that was shown, otherwise as `click`."""
        seen = self._frame(frame, object_id)
        if box_xyxy[2] <= box_xyxy[0] or box_xyxy[3] <= box_xyxy[1]:
            raise PromptError("Draw the box larger.")
        return self._ask(
            Command(type="box", object=object_id, xyxy=box_xyxy, captured_s=seen.captured_s)
        )

    def remove(self, object_id: int) -> None:
        """An object is not wanted any more, from the next frame on. Raises `PromptError`."""
        self._check_known(object_id)
        self._known.discard(object_id)
        self._session.command(Command(type="remove", object=object_id))

    def newest(self, after: int, wait_s: float) -> LiveResult | None:
        """The newest result if its frame comes after this number; waits a while for one."""
        self._looked_s = self._clock.monotonic()

        def there() -> bool:
            return not self.active or (self._shown is not None and self._shown.frame.index > after)

        with self._changed:
            self._changed.wait_for(there, wait_s)
            shown = self._shown
        return shown if shown is not None and shown.frame.index > after else None

    def record(self, *, on: bool) -> None:
        """Begin to write results into a new mask store, or finish it. Raises `StoreError`."""
        recorder = self._recorder
        if not on:
            if recorder is not None:
                recorder.finish()
            return
        if recorder is None or not self.active:
            raise StoreError("There is no picture to record yet.")
        recorder.begin()

    def to_json(self) -> JsonObject:
        """How it goes, as JSON values; latency from a frame's arrival to its result, ms."""
        told, recorder = self._session.status(), self._recorder
        away = self.status == "running" and not told.source["connected"]
        newest = None if recorder is None else recorder.newest
        return {
            "status": self.status,
            "message": self.message,
            "frames": told.frames,
            "fps": round(told.recent_fps, 1),
            "latency_ms": round(told.recent_latency_ms["p50"]) if told.frames else None,
            "worst_ms": round(told.recent_latency_ms["p95"]) if told.frames else None,
            "dropped": told.drops,
            "governor": told.governor.to_json(),
            "trouble": told.source["trouble"] if away else "",
            "gaps": told.source["gaps"],
            "recording": recorder is not None and recorder.recording,
            "recorded": 0 if recorder is None else recorder.count,
            "store": None if newest is None else newest.name,
        }

    # What is asked for

    def _frame(self, index: int, object_id: int | None) -> _Seen:
        """The frame that a click on an object, None for a new one, was made on."""
        if not self.active:
            raise PromptError(_ENDED)
        if object_id is not None:
            self._check_known(object_id)
        with self._changed:
            seen = next((seen for seen in self._seen if seen.index == index), None)
        if seen is None:
            raise PromptError(
                "The picture that was clicked is gone by now; click once more."
                if self._seen
                else "There is no picture to click on yet."
            )
        return seen

    def _check_known(self, object_id: int) -> None:
        if object_id not in self._known:
            raise PromptError(f"There is no object {object_id} (any more).")

    def _ask(self, command: Command) -> int | None:
        outcomes: list[Outcome] = []

        def answer(outcome: Outcome) -> None:
            with self._changed:
                outcomes.append(outcome)
                if command.object is None and outcome.object is not None and not outcome.refused:
                    self._known.add(outcome.object)
                self._changed.notify_all()

        with self._changed:
            if command.object is None:
                if self._begun >= MAX_OBJECTS:
                    raise PromptError(f"A camera takes up to {MAX_OBJECTS} objects; begin anew.")
                self._begun += 1
            self._session.command(command, answer)
            self._changed.wait_for(lambda: outcomes or not self.active, _ANSWER_S)
        if outcomes and outcomes[0].refused:
            raise PromptError(_sentence(outcomes[0].refused))
        if not (outcomes or self.active):
            raise PromptError(_ENDED)
        return outcomes[0].object if outcomes else None

    # What the session calls

    def _run(self) -> None:
        status = "failed"
        try:
            self._session.run(self._opened, behind=self._behind, on_status=self._on_status)
            status = "ended"
        except MaskstreamError as error:
            self.message = str(error)
        except Exception as error:
            logger.exception("a live run failed")
            self.message = f"The camera failed: {error}."
        with self._changed:
            self.status = status
            self._changed.notify_all()

    def _opened(self, info: SourceInfo) -> Sequence[Sink]:
        self.status = "running"
        return [CallbackSink(self._show)]

    def _behind(self, info: SourceInfo) -> Sequence[Sink]:
        self._recorder = Recorder(self._folder, writer_opener(self._session.pipeline, info))
        return [self._recorder]

    def _show(self, live: LiveResult) -> None:
        arrival = live.frame.arrival
        assert arrival is not None  # noqa: S101 - frames of live sources have one
        ids = frozenset(found.id for found in live.result.objects)
        with self._changed:
            self._seen.append(_Seen(live.frame.index, arrival.unix_s, ids))
            self._shown = live
            self._changed.notify_all()

    def _on_status(self, status: LiveStatus) -> None:
        if self._clock.monotonic() - self._looked_s > ABANDONED_S:
            self.stop()


def _sentence(refused: str) -> str:
    """Why something was refused, as the page says it."""
    return f"{refused[:1].upper()}{refused[1:]}."
