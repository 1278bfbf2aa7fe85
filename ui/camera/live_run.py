"""One live run of the camera page: its newest result, clicks, recording.

The run itself is a `maskstream.pipeline.live` session; this module adds what the page needs: the
newest result, answers to clicks, and an end when no page polls any more.
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
"""A run ends when it has not been polled for so long."""
_ANSWER_S = 20.0  # that a click waits for its keyframe
_ENDED = "The camera has ended; restart it."


@dataclass(frozen=True, slots=True)
class _ShownFrame:
    """A frame that was shown. captured_s: time by the capture clock. ids: its objects' ids."""

    index: int
    captured_s: float
    ids: frozenset[int]


class LiveRun:
    """A live session in a thread of its own. status: starting, running, ended, failed.

    folder: for recordings. on_stop: called when the run is stopped. clock: the session's.
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
        self._seen: deque[_ShownFrame] = deque(maxlen=session.pipeline.config.live.history_frames)
        self._known: set[int] = set()
        self._requested = 0  # objects requested, including refused ones
        self._recorder: Recorder | None = None
        self._polled_s = clock.monotonic()
        self._thread = threading.Thread(target=self._run, name="maskstream-watch", daemon=True)
        self._thread.start()

    @property
    def active(self) -> bool:
        """Whether the run has not ended."""
        return self.status in ("starting", "running")

    @property
    def recording(self) -> Path | None:
        """The newest finished recording."""
        recorder = self._recorder
        return None if recorder is None or recorder.recording else recorder.newest

    def stop(self) -> None:
        """Stop the run at the next frame; recordings are kept."""
        self._session.stop()
        self._on_stop()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the run has ended."""
        self._thread.join(timeout_s)

    def click(
        self, frame: int, xy: tuple[float, float], label: int, object_id: int | None
    ) -> int | None:
        """Click on a frame that was shown: on an object (1), beside it (0), or on a new one.

        Waits for the answer and returns the object id; None if no frame arrives to decode the click
        on. Raises `PromptError`.
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
        """Draw a box around an object on a frame that was shown; otherwise as `click`."""
        seen = self._frame(frame, object_id)
        if box_xyxy[2] <= box_xyxy[0] or box_xyxy[3] <= box_xyxy[1]:
            raise PromptError("Draw the box larger.")
        return self._ask(
            Command(type="box", object=object_id, xyxy=box_xyxy, captured_s=seen.captured_s)
        )

    def remove(self, object_id: int) -> None:
        """Remove an object from the next frame on. Raises `PromptError`."""
        self._check_known(object_id)
        self._known.discard(object_id)
        self._session.command(Command(type="remove", object=object_id))

    def newest(self, after: int, wait_s: float) -> LiveResult | None:
        """Wait up to `wait_s` for a result whose frame index is above `after`."""
        self._polled_s = self._clock.monotonic()

        def ready() -> bool:
            return not self.active or (self._shown is not None and self._shown.frame.index > after)

        with self._changed:
            self._changed.wait_for(ready, wait_s)
            shown = self._shown
        return shown if shown is not None and shown.frame.index > after else None

    def record(self, *, on: bool) -> None:
        """Start recording to a new mask store, or finish it. Raises `StoreError`."""
        recorder = self._recorder
        if not on:
            if recorder is not None:
                recorder.finish()
            return
        if recorder is None or not self.active:
            raise StoreError("There is no frame to record yet.")
        recorder.begin()

    def to_json(self) -> JsonObject:
        """Status of the run as JSON values; latency is from a frame's arrival to its result, ms."""
        status, recorder = self._session.status(), self._recorder
        disconnected = self.status == "running" and not status.source["connected"]
        newest = None if recorder is None else recorder.newest
        return {
            "status": self.status,
            "message": self.message,
            "frames": status.frames,
            "fps": round(status.recent_fps, 1),
            "latency_ms": round(status.recent_latency_ms["p50"]) if status.frames else None,
            "worst_ms": round(status.recent_latency_ms["p95"]) if status.frames else None,
            "dropped": status.drops,
            "governor": status.governor.to_json(),
            "trouble": status.source["trouble"] if disconnected else "",
            "gaps": status.source["gaps"],
            "recording": recorder is not None and recorder.recording,
            "recorded": 0 if recorder is None else recorder.count,
            "store": None if newest is None else newest.name,
        }

    # Commands

    def _frame(self, index: int, object_id: int | None) -> _ShownFrame:
        """Find the shown frame of a click on an object (None: a new one)."""
        if not self.active:
            raise PromptError(_ENDED)
        if object_id is not None:
            self._check_known(object_id)
        with self._changed:
            seen = next((seen for seen in self._seen if seen.index == index), None)
        if seen is None:
            raise PromptError(
                "The frame that was clicked is no longer kept; click once more."
                if self._seen
                else "There is no frame to click on yet."
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
                if self._requested >= MAX_OBJECTS:
                    raise PromptError(f"A camera takes up to {MAX_OBJECTS} objects; restart it.")
                self._requested += 1
            self._session.command(command, answer)
            self._changed.wait_for(lambda: outcomes or not self.active, _ANSWER_S)
        if outcomes and outcomes[0].refused:
            raise PromptError(_sentence(outcomes[0].refused))
        if not (outcomes or self.active):
            raise PromptError(_ENDED)
        return outcomes[0].object if outcomes else None

    # Callbacks of the session

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
            self._seen.append(_ShownFrame(live.frame.index, arrival.unix_s, ids))
            self._shown = live
            self._changed.notify_all()

    def _on_status(self, status: LiveStatus) -> None:
        if self._clock.monotonic() - self._polled_s > ABANDONED_S:
            self.stop()


def _sentence(refused: str) -> str:
    """The reason of a refusal as a sentence for the page."""
    return f"{refused[:1].upper()}{refused[1:]}."
