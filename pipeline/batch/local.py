"""Executor on this machine: a pool of processes, each of which runs one task at a time.

Python's own pool ends all of its tasks when one process dies; here only that process's task fails,
and it is known how the process died.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from maskstream.pipeline.batch.tasks import Failure, OpenWork, Outcome, Task

_END_S = 5.0  # for a process to end by itself
_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})  # to a group: the driver drains
_OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


@dataclass(slots=True)
class _Worker:
    """A process and the pipe to it. oom_kills: of the system, when its task began."""

    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    oom_kills: int = 0


class LocalPool:
    """Runs tasks in processes on this machine. See `Executor`.

    open_work: called once in each process. count: of processes, which begin when they are needed.
    cores: threads of a process's linear algebra, unless the environment sets them; None: as many as
    there are cores.
    """

    def __init__(self, open_work: OpenWork, count: int, cores: int | None = None) -> None:
        self._open_work = open_work
        self._count = count
        self._threads = {} if cores is None else dict.fromkeys(_THREAD_VARIABLES, str(cores))
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, _Worker] = {}
        self._context = multiprocessing.get_context("spawn")

    def free(self) -> int:
        """See `Executor`."""
        return self._count - len(self._busy)

    def submit(self, task: Task) -> None:
        """See `Executor`."""
        worker = self._living() or self._start()
        worker.task = task
        worker.oom_kills = oom_kills()
        with suppress(BrokenPipeError):  # it died; `wait` reports it
            worker.pipe.send(task)
        self._busy[worker.pipe] = worker

    def wait(self, timeout_s: float) -> list[tuple[Task, Outcome]]:
        """See `Executor`."""
        return [self._receive(self._busy.pop(pipe)) for pipe in self._ready(timeout_s)]

    def close(self) -> None:
        """See `Executor`."""
        workers = [*self._idle, *self._busy.values()]
        for worker in workers:
            worker.pipe.close()
            if worker.task is not None:
                worker.process.kill()  # its store keeps its commits
        for worker in workers:
            worker.process.join(_END_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._idle, self._busy = [], {}

    def _ready(self, timeout_s: float) -> list[Connection]:
        found = wait(list(self._busy), timeout_s)
        return [pipe for pipe in found if isinstance(pipe, Connection)]

    def _living(self) -> _Worker | None:
        """An idle worker whose process has not died since its last task."""
        while self._idle:
            worker = self._idle.pop()
            if worker.process.is_alive():
                return worker
            worker.pipe.close()
        return None

    def _start(self) -> _Worker:
        pipe, far_end = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(far_end, self._open_work), name="maskstream-batch", daemon=True
        )
        with _blocked_signals(), _environment(self._threads):
            process.start()
        far_end.close()
        return _Worker(process, pipe)

    def _receive(self, worker: _Worker) -> tuple[Task, Outcome]:
        """The outcome of a worker's task, also if the worker died of it."""
        task, worker.task = worker.task, None
        if task is None:  # pragma: no cover - only busy workers are waited for
            raise RuntimeError("a worker without a task has ended")
        try:
            outcome: Outcome = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join(_END_S)
            worker.pipe.close()
            return task, _death(worker.process.exitcode, oom_kills() > worker.oom_kills)
        self._idle.append(worker)
        return task, outcome


def oom_kills() -> int:
    """How many processes the kernel has killed for memory, in this control group or this system."""
    for file in _OOM_COUNTERS:
        with suppress(OSError, ValueError):
            for line in file.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _death(exit_code: int | None, killed_for_memory: bool) -> Outcome:
    if exit_code == -signal.SIGKILL and killed_for_memory:
        return Outcome.failed(
            Failure.MEMORY, "The system killed the worker because it ran out of memory."
        )
    how = f"exit code {exit_code}"
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            how = signal.Signals(-exit_code).name
    hint = "; running out of memory is a usual cause" if how == "SIGKILL" else ""
    return Outcome.failed(Failure.LOST, f"The worker died ({how}){hint}.")


def _work(pipe: Connection, open_work: OpenWork) -> None:
    """Run tasks from the pipe until it is closed."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    work = open_work()
    with suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(work(pipe.recv()))


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Let processes that begin here have these variables where the environment has none."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block signals that stop a batch: a process that begins here inherits it."""
    resource_tracker.ensure_running()  # it unblocks them when it begins
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_driver() -> None:
    """End this process when the driver is killed: its stores keep their commits."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)
