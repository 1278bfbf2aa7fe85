"""A camera that is watched: objects clicked while it runs, latency, recording.

This is all that the page knows of live runs. Pictures come from `ui.cameras`, results from the
engine with a queue in which the newest frame wins.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PrivateAttr

from pipeline.config import PipelineConfig
from pipeline.engine import Pipeline
from pipeline.errors import MaskstreamError, PromptError, StoreError
from pipeline.outputs import attributes_of
from pipeline.prompts import BoxEvent, PointEvent, Prompt, PromptLog, RemoveEvent
from pipeline.store import MaskStoreWriter
from pipeline.types import Frame, FrameReader, FrameResult, Source, SourceInfo
from ui.cameras import LiveReader
from ui.entries import MAX_OBJECTS

logger = logging.getLogger(__name__)

ABANDONED_S = 60.0  # after nobody has looked for so long it ends
_OVER = 30  # results over which speed and latency are told


class LivePrompts(PromptLog):
    """Prompts that come while a stream runs; those that wait are of the frame that is next."""

    _waiting: deque[Prompt] = PrivateAttr(default_factory=deque)

    def put(self, prompt: Prompt) -> None:
        """Leave a prompt, from any thread."""
        self._waiting.append(prompt)

    def at(self, frame: int) -> tuple[Prompt, ...]:
        """Everything that came since the last frame."""
        return tuple(self._waiting.popleft() for _ in range(len(self._waiting)))


@dataclass(frozen=True, slots=True)
class Shown:
    """The newest result, with its frame."""

    frame: Frame
    result: FrameResult


class LiveRun:
    """One source that is watched, from its opening on. status: starting, running, ended, failed.

    folder: for recordings. on_open: called when the source is open and the network loaded, on_stop:
    when it is to end. monotonic: tells seconds.
    """

    def __init__(
        self,
        config: PipelineConfig,
        source: Source,
        folder: Path,
        *,
        on_open: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        queue = config.queue.model_copy(update={"policy": "latest"})
        seeding = config.seeding.model_copy(update={"enabled": False})
        self.status = "starting"
        self.message = ""
        self.recording: Path | None = None
        self._config = config.model_copy(update={"queue": queue, "seeding": seeding})
        self._source = _Timed(source, monotonic)
        self._folder = folder
        self._on_open = on_open
        self._on_stop = on_stop
        self._monotonic = monotonic
        self._prompts = LivePrompts(version=1)
        self._changed = threading.Condition()
        self._shown: Shown | None = None
        self._frames = 0
        self._objects = 0
        self._looked_s = monotonic()
        self._times: deque[tuple[float, float]] = deque(maxlen=_OVER)  # when, latency
        self._writer: MaskStoreWriter | None = None
        self._recorded = 0
        self._pipeline: Pipeline | None = None
        self._info: SourceInfo | None = None
        self._thread = threading.Thread(target=self._run, name="maskstream-watch", daemon=True)
        self._thread.start()

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.status in ("starting", "running")

    def stop(self) -> None:
        """End it with the next frame; what was recorded is kept."""
        self._source.stopped.set()
        self._on_stop()

    def wait(self, timeout_s: float | None = None) -> None:
        """Until it has ended."""
        self._thread.join(timeout_s)

    def click(self, x: float, y: float, label: int, object_id: int | None) -> int:
        """A click on the newest frame: on an object (1), beside it (0), or on a new one.

        Gives the object's number. Raises `PromptError`.
        """
        number = self._number(object_id)
        if not label and not self._sees(number):
            raise PromptError("Click on the object first, then on what does not belong to it.")
        event = PointEvent(type="point", frame=0, object=number, xy=(x, y), label=1 if label else 0)
        return self._ask(event)

    def box(self, box_xyxy: tuple[float, float, float, float], object_id: int | None) -> int:
        """A box around an object of the newest frame; gives its number. Raises `PromptError`."""
        number = self._number(object_id)
        if box_xyxy[2] <= box_xyxy[0] or box_xyxy[3] <= box_xyxy[1]:
            raise PromptError("Draw the box larger.")
        return self._ask(BoxEvent(type="box", frame=0, object=number, xyxy=box_xyxy))

    def remove(self, object_id: int) -> None:
        """An object is not wanted any more."""
        self._ask(RemoveEvent(type="remove", frame=0, object=self._number(object_id)))

    def newest(self, after: int, wait_s: float) -> Shown | None:
        """The newest result if its frame comes after this number; waits a while for one."""
        self._looked_s = self._monotonic()

        def there() -> bool:
            return not self.active or (self._shown is not None and self._shown.frame.index > after)

        with self._changed:
            self._changed.wait_for(there, wait_s)
            shown = self._shown
        return shown if shown is not None and shown.frame.index > after else None

    def record(self, *, on: bool) -> None:
        """Begin to write results into a new mask store, or finish it. Raises `StoreError`."""
        with self._changed:
            if on == (self._writer is not None):
                return
            if not on:
                self._finish_recording()
                return
            if self._pipeline is None or self._info is None or not self.active:
                raise StoreError("There is no picture to record yet.")
            self._folder.mkdir(parents=True, exist_ok=True)
            number = 1 + sum(1 for _ in self._folder.glob("live-*.zarr"))
            place = self._folder / f"live-{number}.zarr"
            attributes = attributes_of(self._pipeline, self._info.name)
            self._writer = MaskStoreWriter(place, info=self._info, attributes=attributes)
            self.recording, self._recorded = place, 0

    def to_json(self) -> dict[str, Any]:
        """How it goes, as JSON values; latency from a frame's arrival to its result, ms."""
        times = list(self._times)
        span_s = times[-1][0] - times[0][0] if len(times) > 1 else 0.0
        late = sorted(1000 * latency for _, latency in times)
        shown = self._shown
        return {
            "status": self.status,
            "message": self.message,
            "fps": round((len(times) - 1) / span_s, 1) if span_s > 0 else 0.0,
            "latency_ms": round(late[len(late) // 2]) if late else None,
            "worst_ms": round(float(np.percentile(late, 95))) if late else None,
            "dropped": 0 if shown is None else shown.frame.index + 1 - self._frames,
            "recording": self._writer is not None,
            "recorded": self._recorded,
            "store": None if self.recording is None else self.recording.name,
        }

    def _number(self, object_id: int | None) -> int:
        if not self.active:
            raise PromptError("The camera has ended; begin anew.")
        if object_id is None:
            if self._objects >= MAX_OBJECTS:
                raise PromptError(f"A camera takes up to {MAX_OBJECTS} objects; begin anew.")
            return self._objects + 1
        if not 1 <= object_id <= self._objects:
            raise PromptError(f"There is no object {object_id}.")
        return object_id

    def _sees(self, object_id: int) -> bool:
        shown = self._shown
        return shown is not None and any(o.id == object_id for o in shown.result.objects)

    def _ask(self, event: Prompt) -> int:
        if self._info is None:
            raise PromptError("There is no picture to click on yet.")
        PromptLog(version=1, events=(event,)).check_inside(self._info.size_hw)
        self._objects = max(self._objects, event.object)
        self._prompts.put(event)
        return event.object

    def _run(self) -> None:
        try:
            pipeline = Pipeline(self._config)
            self._pipeline = pipeline
            pipeline.run(self._source, self._sinks, self._prompts)
            self.status = "ended"
        except MaskstreamError as error:
            self._fail(str(error))
        except Exception as error:
            logger.exception("a live run failed")
            self._fail(f"The camera failed: {error}.")
        with self._changed:
            self._finish_recording()
            self._changed.notify_all()

    def _sinks(self, info: SourceInfo) -> list[LiveRun]:
        self._info = info
        self.status = "running"
        self._on_open()
        return [self]

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Show a result, and record it if that is wanted; for the engine."""
        now = self._monotonic()
        with self._changed:
            self._frames += 1
            self._times.append((now, now - self._source.arrived_s(frame.index, now)))
            self._shown = Shown(frame, result)
            if self._writer is not None:
                self._writer.append(result)
                self._recorded += 1
            self._changed.notify_all()
        if now - self._looked_s > ABANDONED_S:
            self.stop()

    def idle(self) -> None:
        """Make safe what was recorded; for the engine."""
        with self._changed:
            if self._writer is not None:
                self._writer.commit_due()

    def close(self, *, complete: bool) -> None:
        """Nothing to do: recordings are finished in any case; for the engine."""

    def _finish_recording(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close(complete=True)

    def _fail(self, message: str) -> None:
        self.message = message
        self.status = "failed"


class _Timed:
    """A source that can be stopped, and knows when its last frames arrived."""

    def __init__(self, source: Source, monotonic: Callable[[], float]) -> None:
        self.stopped = threading.Event()
        self._source = source
        self._monotonic = monotonic
        self._arrived: deque[tuple[int, float]] = deque(maxlen=128)

    def arrived_s(self, index: int, default: float) -> float:
        """When a frame arrived; `default` if that was long ago."""
        return next((when for number, when in tuple(self._arrived) if number == index), default)

    @contextmanager
    def open(self) -> Iterator[LiveReader]:
        with self._source.open() as reader:
            yield LiveReader(reader.info, reader.report, self._frames(reader))

    def _frames(self, reader: FrameReader) -> Iterator[Frame]:
        for frame in reader:
            if self.stopped.is_set():
                return
            self._arrived.append((frame.index, self._monotonic()))
            yield frame
