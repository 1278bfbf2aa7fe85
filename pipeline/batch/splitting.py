"""Videos in parts: an executor that hands the steps of each video to another one.

A worker plans a video, workers run its parts in parallel, and one joins their stores. To the driver
a video is one task still, which is tried again as a whole: parts that are complete are not run
again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from maskstream.pipeline.batch.tasks import (
    BatchJob,
    Executor,
    Failure,
    Outcome,
    State,
    Step,
    Task,
)
from maskstream.pipeline.runs.parts import Part


@dataclass(slots=True)
class _Video:
    """A video in work.

    running: its steps at workers. left: parts that are not complete yet. failed: of its first step
    that failed. frames_run, seconds: sums of its steps.
    """

    task: Task
    parts: tuple[Part, ...] = ()
    running: int = 0
    left: int = 0
    failed: Outcome | None = None
    frames_run: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class SplittingPool:
    """Runs videos in parts where the job, or a task itself, says so. See `Executor`.

    pool: runs the steps. When memory runs out, fewer of them run at once from then on.
    """

    pool: Executor
    job: BatchJob
    _videos: dict[int, _Video] = field(default_factory=dict)  # by task number
    _queue: deque[Task] = field(default_factory=deque)
    _running: int = 0
    _together: int | None = None

    def free(self) -> int:
        """See `Executor`."""
        return max(0, self._room() - len(self._queue))

    def submit(self, task: Task) -> None:
        """See `Executor`."""
        splits = self.job.split_shots if task.split_shots is None else task.split_shots
        self._videos[task.number] = _Video(task)
        self._queue.append(replace(task, step=Step.PLAN if splits else Step.RUN))
        self._hand_out()

    def wait(self, timeout_s: float) -> list[tuple[Task, Outcome]]:
        """See `Executor`."""
        ended = []
        for step, outcome in self.pool.wait(timeout_s):
            video = self._videos[step.number]
            video.running -= 1
            self._running -= 1
            video.frames_run += outcome.run
            video.seconds += outcome.seconds
            whole = self._next(video, step, outcome)
            if whole is not None:
                del self._videos[step.number]
                whole = replace(whole, run=video.frames_run, seconds=video.seconds, parts=())
                ended.append((video.task, whole))
        self._hand_out()
        return ended

    def close(self) -> None:
        """See `Executor`."""
        self._queue.clear()
        self.pool.close()

    def _room(self) -> int:
        free = self.pool.free()
        return free if self._together is None else min(free, self._together - self._running)

    def _hand_out(self) -> None:
        while self._queue and self._room() > 0:
            step = self._queue.popleft()
            self._videos[step.number].running += 1
            self._running += 1
            self.pool.submit(step)

    def _next(self, video: _Video, step: Task, outcome: Outcome) -> Outcome | None:
        """What follows a step of a video; the outcome of the video if nothing does."""
        if outcome.state is State.FAILED:
            return self._fail(video, step, outcome)
        if step.step is Step.PLAN and outcome.state is State.DONE:
            self._add(video, outcome.parts)
            return None
        if step.step is not Step.PART:
            return outcome
        video.left -= 1
        if video.failed is None and video.left == 0:
            self._queue.append(replace(step, step=Step.JOIN, parts=video.parts))
        return None if video.running else video.failed

    def _add(self, video: _Video, parts: tuple[Part, ...]) -> None:
        """Queue the parts of a video; without any it is run as a whole."""
        video.parts, video.left = parts, len(parts)
        for part in video.parts:
            self._queue.append(replace(video.task, step=Step.PART, parts=(part,)))
        if not video.parts:
            self._queue.append(replace(video.task, step=Step.RUN))

    def _fail(self, video: _Video, step: Task, outcome: Outcome) -> Outcome | None:
        """Let a video fail with its first failed step, once the others that run have ended."""
        if outcome.failure is Failure.MEMORY:
            self._together = max(1, self._running)
        if step.step is Step.PART:
            first, end = step.parts[0]
            outcome = replace(outcome, error=f"Frames {first} to {end - 1}: {outcome.error}")
        video.failed = video.failed or outcome
        self._queue = deque(task for task in self._queue if task.number != step.number)
        return None if video.running else video.failed
