"""Several cameras in one process: a live session each, with one model and one governor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.live.session import CallbackSink, LiveResult, LiveSession
from maskstream.pipeline.live.shared_work import SharedWork
from maskstream.pipeline.live.status import LiveStatus
from maskstream.pipeline.sources.live import InputOptions
from maskstream.pipeline.sources.timed import Image
from maskstream.pipeline.types import Sink, SourceInfo

MakeCameraSinks = Callable[[str, SourceInfo], Sequence[Sink]]


class LiveCameras:
    """Live sessions of several cameras, run together, once.

    Their keyframes are computed by one model in turn, and one governor keeps the deadline of all.
    Every camera has its own objects, ids and outputs. One that fails ends alone. sessions: by name;
    `sessions["front"].command(…)` sends a command. failures: why cameras have failed, by name.

    >>> cameras = LiveCameras.open({"front": "rtsp://a/1", "rear": "rtsp://b/1"})  # doctest: +SKIP
    >>> for name, live in cameras:                                                # doctest: +SKIP
    ...     print(name, live.frame.pts_s, [o.id for o in live.result.objects])

    `async for` works as well. A loop that is slower than the streams gets the newest result of
    each; leaving it stops the run. When all have ended, it raises the first failure, if there is
    one.
    """

    def __init__(self, sessions: Mapping[str, LiveSession], shared: SharedWork) -> None:
        """Use `open`."""
        self.sessions = sessions
        self.failures: dict[str, Exception] = {}
        self._shared = shared
        self._fatal: BaseException | None = None

    @classmethod
    def open(
        cls,
        targets: Mapping[str, str | Path | Iterable[Image]],
        config: PipelineConfig | None = None,
        options: InputOptions | None = None,
        *,
        record: Mapping[str, Path] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> LiveCameras:
        """Open sessions on live inputs by name, as `LiveSession.open` does.

        options: of all. record: files to record to, by name. Raises `SourceError`, `ConfigError`,
        `ModelError`.
        """
        config = config or PipelineConfig()
        shared, files = SharedWork(config), record or {}
        sessions = {
            name: LiveSession.open(
                target, config, options, record=files.get(name), clock=clock, shared=shared
            )
            for name, target in targets.items()
        }
        return cls(sessions, shared)

    def run(
        self,
        make_sinks: MakeCameraSinks = lambda name, info: (),
        *,
        behind: MakeCameraSinks = lambda name, info: (),
        on_status: Callable[[str, LiveStatus], None] | None = None,
        on_failure: Callable[[str, Exception], None] | None = None,
        duration_s: float | None = None,
    ) -> dict[str, LiveStatus]:
        """Run until all cameras have ended; arguments are as in `LiveSession.run`, with the name.

        on_failure: called when a camera has failed, in another thread; the others go on. An
        exception in a callback ends all of them, and so does a `BrokenPipeError` of a sink: the
        reader of standard output has left. Both are raised.
        """
        threads = [
            threading.Thread(
                target=self._run_one,
                args=(name, session),
                kwargs={
                    "make_sinks": partial(make_sinks, name),
                    "behind": partial(behind, name),
                    "on_status": on_status and partial(self._tell, on_status, name),
                    "on_failure": on_failure,
                    "duration_s": duration_s,
                },
                name=f"maskstream-live-{name}",
                daemon=True,
            )
            for name, session in self.sessions.items()
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            self.stop()
            for thread in threads:
                thread.join()
            self._shared.close()
        if self._fatal is not None:
            raise self._fatal
        return self.status()

    def stop(self) -> None:
        """Stop all cameras, whatever their sources and sinks wait for; from any thread."""
        for session in self.sessions.values():
            session.stop()

    def status(self) -> dict[str, LiveStatus]:
        """Current status of all cameras by name; may be called from any thread."""
        return {name: session.status() for name, session in self.sessions.items()}

    def __iter__(self) -> Iterator[tuple[str, LiveResult]]:
        newest, thread = self._start()
        try:
            yield from newest
        finally:
            self.stop()
            thread.join()

    async def __aiter__(self) -> AsyncIterator[tuple[str, LiveResult]]:
        newest, thread = self._start()
        try:
            while (taken := await asyncio.to_thread(next, newest, None)) is not None:
                yield taken
        finally:
            self.stop()
            newest.end()  # also wakes the thread that waits for a result
            await asyncio.to_thread(thread.join)

    def _start(self) -> tuple[_Newest, threading.Thread]:
        newest = _Newest()
        thread = threading.Thread(
            target=self._run_into, args=(newest,), name="maskstream-live", daemon=True
        )
        thread.start()
        return newest, thread

    def _run_into(self, newest: _Newest) -> None:
        try:
            self.run(lambda name, info: [CallbackSink(partial(newest.put, name))])
        except BaseException as error:
            newest.end(error)
        else:
            newest.end(next(iter(self.failures.values()), None))

    def _run_one(
        self,
        name: str,
        session: LiveSession,
        *,
        on_failure: Callable[[str, Exception], None] | None,
        make_sinks: Callable[[SourceInfo], Sequence[Sink]],
        behind: Callable[[SourceInfo], Sequence[Sink]],
        on_status: Callable[[LiveStatus], None] | None,
        duration_s: float | None,
    ) -> None:
        try:
            session.run(make_sinks, behind=behind, on_status=on_status, duration_s=duration_s)
        except BrokenPipeError as error:
            self._end(error)
        except Exception as error:
            if self._fatal is error:
                return
            self.failures[name] = error
            if on_failure is not None:
                self._call(on_failure, name, error)
        except BaseException as error:
            self._end(error)

    def _tell(
        self, on_status: Callable[[str, LiveStatus], None], name: str, status: LiveStatus
    ) -> None:
        try:
            on_status(name, status)
        except BaseException as error:
            self._end(error)
            raise

    def _call(
        self, on_failure: Callable[[str, Exception], None], name: str, failure: Exception
    ) -> None:
        try:
            on_failure(name, failure)
        except BaseException as error:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        """End all cameras with an error; the first is raised."""
        self._fatal = self._fatal or error
        self.stop()


class _Newest:
    """The newest result of each camera that was not taken yet; the longest wait is served first."""

    def __init__(self) -> None:
        self._waiting: dict[str, LiveResult] = {}
        self._changed = threading.Condition()
        self._ended = False
        self._failure: BaseException | None = None

    def put(self, name: str, live: LiveResult) -> None:
        """Add a result; one of the same camera gives its place to it."""
        with self._changed:
            self._waiting[name] = live
            self._changed.notify_all()

    def end(self, failure: BaseException | None = None) -> None:
        """End the iteration after the results that wait, with the failure if there is one."""
        with self._changed:
            self._ended = True
            self._failure = self._failure or failure
            self._changed.notify_all()

    def __iter__(self) -> Iterator[tuple[str, LiveResult]]:
        return self

    def __next__(self) -> tuple[str, LiveResult]:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._waiting)
            if self._waiting:
                name = next(iter(self._waiting))
                return name, self._waiting.pop(name)
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            raise StopIteration
