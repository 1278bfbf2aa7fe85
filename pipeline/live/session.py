"""Live session: source, pipeline, governor, watchdog and sinks, from start to stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.engine.frame_queue import FrameQueue, Policy
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import QueueClosedError
from maskstream.pipeline.live.commands import Command, CommandQueue, PendingCommand
from maskstream.pipeline.live.headers import Headers, check_stamps
from maskstream.pipeline.live.outputs import Outputs
from maskstream.pipeline.live.processor import LiveProcessor
from maskstream.pipeline.live.reconnect import ReconnectingSource, ReconnectPolicy
from maskstream.pipeline.live.shared_work import SharedWork
from maskstream.pipeline.live.status import LiveStatus, Meter, Watchdog, resident_mb
from maskstream.pipeline.sources.live import InputOptions, open_live
from maskstream.pipeline.sources.packet_feed import CatchUp
from maskstream.pipeline.sources.recording import Recordings
from maskstream.pipeline.sources.timed import Image
from maskstream.pipeline.tracking.keyframes import KeyframeBudget
from maskstream.pipeline.types import Frame, FrameResult, Sink, SizeHW, SourceInfo

_TICK_S = 1.0
_TELLER_END_S = 2.0  # for an `on_status` that is being called
_ITERATOR_AHEAD = 2  # results kept for a loop; older ones are dropped


@dataclass(frozen=True, slots=True)
class LiveResult:
    """A result with its frame, whose pixels are valid until the next result."""

    frame: Frame
    result: FrameResult


MakeSinks = Callable[[SourceInfo], Sequence[Sink]]


class LiveSession:
    """One live run, started once: by `run`, or by iterating over it.

    >>> session = LiveSession.open("rtsp://camera/stream")            # doctest: +SKIP
    >>> for live in session:                                          # doctest: +SKIP
    ...     print(live.frame.pts_s, [o.id for o in live.result.objects])

    `async for` works as well. A loop that is slower than the stream gets the newest results;
    leaving it stops the run. headers: what publishers' messages say of a frame, as configured.
    """

    def __init__(
        self,
        config: PipelineConfig,
        source: ReconnectingSource,
        *,
        clock: Clock = SYSTEM_CLOCK,
        shared: SharedWork | None = None,
        recordings: Recordings | None = None,
    ) -> None:
        """Load the pipeline. shared: with other cameras. recordings: of the source.

        Raises `ConfigError`, `ModelError`.
        """
        self.commands = CommandQueue()
        self.headers = Headers.of(config.live)
        self.outputs = Outputs()
        self._shared = shared or SharedWork(config)
        self._owns_shared = shared is None
        self._recordings = recordings or Recordings()
        self.governor = self._shared.governor
        self.pipeline = Pipeline(config)
        self._source = source
        self._clock = clock
        observe = self._shared.observer()
        self._meter = Meter(observe, clock, lambda: self.pipeline.summary.dropped)
        self._watchdog = Watchdog(self._running_stages, config.live.hang_s)
        self._over = threading.Event()
        self._failure: BaseException | None = None  # of `on_status`
        self._abandoned: tuple[str, ...] = ()
        self._end_s: float | None = None  # when `duration_s` has passed; None while loading
        source.pause()  # until the model is loaded and sinks are open

    @classmethod
    def open(
        cls,
        target: str | Path | Iterable[Image],
        config: PipelineConfig | None = None,
        options: InputOptions | None = None,
        *,
        record: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
        shared: SharedWork | None = None,
    ) -> LiveSession:
        """Open a session on a live input (`open_live`); frames are dropped for newer ones.

        shared: what several cameras share; `LiveCameras` gives it. Raises `SourceError`,
        `ConfigError`, `ModelError`.
        """
        config = live_config(config or PipelineConfig())
        live = config.live
        check_stamps(live.stamps, target)
        found = open_live(
            target,
            options or InputOptions(stall_s=live.stall_s),
            record=record,
            clock=clock,
            threads=config.threads.decode,
            catch_up=CatchUp(live.latency_ms / 1000, live.behind_s),
        )
        policy = ReconnectPolicy(live.gap_s, live.retry_first_s, live.retry_max_s)
        source = ReconnectingSource(
            found.source,
            reopenable=found.reopenable,
            policy=policy,
            clock=clock,
            stopped=found.stopped,
        )
        return cls(config, source, clock=clock, shared=shared, recordings=found.recordings)

    def run(
        self,
        make_sinks: MakeSinks = lambda info: (),
        *,
        behind: MakeSinks = lambda info: (),
        on_status: Callable[[LiveStatus], None] | None = None,
        duration_s: float | None = None,
    ) -> LiveStatus:
        """Run until the source ends, `stop` is called or `duration_s` has passed since its opening.

        make_sinks: creates the publishers; latency is measured to the end of their `write`. behind:
        creates the other sinks, such as the store. on_status: called once a second, in another
        thread; an exception in it ends the run.

        A source that is silent, also before its first frame, does not delay the end by more than
        `live.stop_s` seconds; then its thread is left behind, as `LiveStatus.abandoned` says.

        Raises `SourceError` if the source cannot be opened, `SinkHangsError` if a sink hangs, and
        what sinks and `on_status` raise.
        """
        if duration_s is not None:
            self._end_s = self._clock.monotonic() + duration_s
        ticker = threading.Thread(target=self._tick, name="maskstream-ticker", daemon=True)
        teller = threading.Thread(
            target=self._tell, args=(on_status,), name="maskstream-status", daemon=True
        )

        def all_sinks(info: SourceInfo) -> list[Sink]:
            with self._or_stop():
                if self.headers.camera is not None:
                    self.headers.camera.at(info.size_hw)  # an error comes before the first frame
                sinks = [*make_sinks(info), self._meter, *behind(info)]
            if duration_s is not None:
                self._end_s = self._clock.monotonic() + duration_s
            teller.start()
            self._source.resume()
            return sinks

        ticker.start()
        try:
            self.pipeline.run(
                self._source,
                all_sinks,
                make_processor=self._processor,
                reader_end_s=self.pipeline.config.live.stop_s,
            )
        finally:
            self._over.set()
            if self._owns_shared:
                self._shared.close()
            if self.pipeline.source_abandoned:
                self._recordings.finish()
            ticker.join()
            if teller.ident is not None:
                teller.join(_TELLER_END_S)
            threads = {"source": self.pipeline.source_abandoned, "status": teller.is_alive()}
            self._abandoned = tuple(name for name, left in threads.items() if left)
        if self._failure is not None:
            raise self._failure
        return self.status()

    def stop(self) -> None:
        """Stop the run, whatever the source and the sinks wait for; from any thread."""
        self._source.stop()
        self.pipeline.stop(self.pipeline.config.live.close_s)

    def command(self, command: Command, answer: Callable[..., None] = lambda outcome: None) -> None:
        """Queue a command; `answer` is called with its `Outcome`, in another thread."""
        self.commands.put(PendingCommand(command, answer))

    def status(self) -> LiveStatus:
        """Current status of the run; may be called from any thread."""
        meter, summary = self._meter, self.pipeline.summary
        source = self._source
        newest_s, shown_s = source.newest_s, meter.last_arrival_s
        behind_s = 0.0 if newest_s is None or shown_s is None else max(0.0, newest_s - shown_s)
        return LiveStatus(
            seconds=0.0 if meter.first_s is None else meter.last_s - meter.first_s,
            frames=meter.frames,
            drops=meter.drops,
            keyframes=summary.keyframes,
            objects=meter.objects,
            full=meter.full,
            latency_ms=meter.latency.to_json(),
            recent_latency_ms=meter.recent_ms,
            recent_fps=meter.recent_fps,
            rss_mb={"start": meter.rss_start_mb, "end": resident_mb()},
            governor=self.governor.state_at(behind_s),
            source={
                "connected": source.connected,
                "connections": source.connections,
                "gaps": source.gaps,
                "skipped": source.skipped,
                "corrupt_packets": summary.report.corrupt_packets,
                "trouble": source.trouble,
                "recording": self._recordings.how,
            },
            hanging=self._watchdog.hanging(),
            abandoned=self._abandoned,
            failed=self._failed(),
            behind_s=behind_s,
            since_capture_ms=meter.since_capture_ms,
        )

    def _failed(self) -> dict[str, str]:
        recording = self.pipeline.summary.report.recording_failed
        return self.outputs.failed | ({"record": recording} if recording else {})

    def __iter__(self) -> Iterator[LiveResult]:
        queue, thread = self._start()
        try:
            yield from queue
        finally:
            self.stop()
            queue.cancel()
            thread.join()

    async def __aiter__(self) -> AsyncIterator[LiveResult]:
        queue, thread = self._start()
        try:
            while (live := await asyncio.to_thread(next, queue, None)) is not None:
                yield live
        finally:
            self.stop()
            queue.cancel()  # also wakes the thread that waits for a result
            await asyncio.to_thread(thread.join)

    def _start(self) -> tuple[FrameQueue[LiveResult], threading.Thread]:
        queue: FrameQueue[LiveResult] = FrameQueue(
            _ITERATOR_AHEAD,
            Policy.DROP_OLDEST,
            carry=lambda dropped, after: replace(after, frame=after.frame.after(dropped.frame)),
        )
        thread = threading.Thread(
            target=self._run_into, args=(queue,), name="maskstream-live", daemon=True
        )
        thread.start()
        return queue, thread

    def _run_into(self, queue: FrameQueue[LiveResult]) -> None:
        try:
            self.run(lambda info: [_QueueSink(queue)])
            queue.close()
        except BaseException as error:
            queue.fail(error)

    def _processor(self, config: PipelineConfig, model: Path, size_hw: SizeHW) -> LiveProcessor:
        self._end_s = None  # the time to load the model does not count
        with self._or_stop():
            engine, detector = self._shared.engine, self.pipeline.detector
            return LiveProcessor(config, model, size_hw, self, engine, detector=detector)

    @contextmanager
    def _or_stop(self) -> Iterator[None]:
        """Stop the paused source if something fails before the first frame."""
        try:
            yield
        except BaseException:
            self._source.stop()
            raise

    def budget(self) -> KeyframeBudget:
        """Current keyframe budget, for the processor."""
        self._source.spare_decoding = self.governor.spares_decoding
        return self.governor.state.budget

    def take_commands(self) -> Sequence[PendingCommand]:
        """Commands queued since the last call, for the processor."""
        return self.commands.take()

    def end_commands(self) -> None:
        """Refuse the commands that wait, and those that come, for the processor."""
        self.commands.end()

    def _running_stages(self) -> dict[str, float]:
        running = self.pipeline.running()
        if not self._source.connected:  # waiting to reconnect is not a hang
            running.pop("read", None)
        return running

    def _tick(self) -> None:
        """End the run when its time has passed, whatever hangs."""
        while True:
            left_s = _TICK_S if self._end_s is None else self._end_s - self._clock.monotonic()
            if left_s <= 0:
                self.stop()
                return
            if self._clock.wait(self._over, min(_TICK_S, left_s)):
                return

    def _tell(self, on_status: Callable[[LiveStatus], None] | None) -> None:
        """Call `on_status` once a second; its error ends the run."""
        try:
            while not self._clock.wait(self._over, _TICK_S):
                status = self.status()  # also checks for hanging stages
                if on_status is not None:
                    on_status(status)
        except BaseException as error:
            self._failure = error
            self.stop()


class _QueueSink:
    """A sink that queues results for a loop."""

    def __init__(self, queue: FrameQueue[LiveResult]) -> None:
        self._queue = queue

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Queue the result; ignored once the loop has ended."""
        with suppress(QueueClosedError):
            self._queue.put(LiveResult(frame, result))

    def idle(self) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Nothing to do."""


class CallbackSink:
    """A sink that calls a function with every result, in the writer's thread."""

    def __init__(self, callback: Callable[[LiveResult], None]) -> None:
        self._callback = callback

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Call the function."""
        self._callback(LiveResult(frame, result))

    def idle(self) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Nothing to do."""


def live_config(config: PipelineConfig) -> PipelineConfig:
    """Adapt a configuration to live runs: queue policy LATEST, fewer seeding prompts at first."""
    queue = config.queue.model_copy(update={"policy": "latest"})
    prompts = min(config.seeding.prompts_first, config.live.prompts_first)
    seeding = config.seeding.model_copy(update={"prompts_first": prompts})
    return config.model_copy(update={"queue": queue, "seeding": seeding})
