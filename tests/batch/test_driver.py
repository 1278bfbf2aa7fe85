"""The driver: tries, backoff, memory, draining, and tasks that are read as they are handed out."""

from collections.abc import Iterator
from itertools import count

import pytest

from maskstream.pipeline.batch.driver import Driver, Listener
from maskstream.pipeline.batch.tasks import Failure, Outcome, State, Task
from maskstream.pipeline.errors import ConfigError

DONE = Outcome(State.DONE, frames=5, run=5)


class Script:
    """An executor of `room` tasks that gives each task's outcomes in turn, without working.

    Time passes while it is waited for.
    """

    def __init__(self, outcomes, room=2):
        self.outcomes = {number: list(each) for number, each in outcomes.items()}
        self.room = room
        self.now = 0.0
        self.begun: list[tuple[float, int]] = []
        self.most = 0
        self._running: list[Task] = []

    def free(self):
        return self.room - len(self._running)

    def submit(self, task):
        self._running.append(task)
        self.begun.append((self.now, task.number))
        self.most = max(self.most, len(self._running))

    def wait(self, timeout_s):
        self.now += timeout_s
        if not self._running:
            return []
        task = self._running.pop(0)
        left = self.outcomes.get(task.number, [])
        return [(task, left.pop(0) if left else DONE)]

    def close(self):
        pass


class Notes(Listener):
    def __init__(self):
        self.ends = {}
        self.starts = []
        self.retries = []
        self.parallel = []

    def started(self, task, tries):
        self.starts.append((task.number, tries))

    def retried(self, task, outcome, tries, delay_s):
        self.retries.append((task.number, outcome.failure, delay_s))

    def ended(self, task, outcome, tries):
        self.ends[task.number] = (outcome.state, tries)

    def tick(self, totals):
        self.parallel.append(totals.running)


def tasks(number: int) -> Iterator[Task]:
    return (Task(n, f"{n}.mp4", str(n)) for n in range(number))


def drive(executor, given, **options):
    notes = Notes()
    driver = Driver(executor, [notes], monotonic=lambda: executor.now, **options)
    return driver, notes, driver.run(given)


def failing(failure, times=1):
    return [Outcome.failed(failure, "no")] * times


@pytest.mark.parametrize(
    ("failure", "times", "expected"),
    [
        (Failure.FINAL, 1, (State.FAILED, 1)),
        (Failure.TRANSIENT, 2, (State.DONE, 3)),
        (Failure.TRANSIENT, 3, (State.FAILED, 3)),
        (Failure.LOST, 1, (State.DONE, 2)),
        (Failure.BUSY, 9, (State.DONE, 1)),
        (Failure.MEMORY, 1, (State.DONE, 2)),
    ],
)
def test_which_failures_are_tried_again_and_how_often(failure, times, expected):
    _, notes, totals = drive(Script({1: failing(failure, times)}), tasks(3))
    assert notes.ends == {0: (State.DONE, 1), 1: expected, 2: (State.DONE, 1)}
    assert totals.done + totals.failed == 3
    assert totals.frames == 5 * totals.done


def test_the_pause_before_a_try_grows_and_others_go_on_meanwhile():
    script = Script({0: failing(Failure.TRANSIENT, 2)}, room=1)
    _, notes, _ = drive(script, tasks(3))
    assert [delay for _, _, delay in notes.retries] == [2.0, 4.0]
    assert [number for _, number in script.begun] == [0, 1, 2, 0, 0]
    first, _, _, second, third = (at for at, _ in script.begun)
    assert second - first >= 2
    assert third - second >= 4


def test_a_busy_store_is_waited_for_as_long_as_it_takes_and_told_once():
    script = Script({0: failing(Failure.BUSY, 20) + failing(Failure.TRANSIENT) + [DONE]}, room=1)
    _, notes, totals = drive(script, tasks(1))
    assert [failure for _, failure, _ in notes.retries] == [Failure.BUSY, Failure.TRANSIENT]
    assert (notes.ends[0], notes.starts) == ((State.DONE, 2), [(0, 1), (0, 2)])
    assert totals.retried == 2
    assert 20 * 30 < script.begun[20][0] < 20 * 60


def test_the_pause_before_a_try_stays_within_minutes():
    script = Script({0: failing(Failure.TRANSIENT, 19)}, room=1)
    _, notes, _ = drive(script, tasks(1), tries=20)
    assert notes.ends == {0: (State.DONE, 20)}
    assert max(delay for _, _, delay in notes.retries) <= 600


def test_stopping_lets_what_runs_fail():
    class Stops(Notes):
        def ended(self, task, outcome, tries):
            super().ended(task, outcome, tries)
            driver.stop()

    notes, script = Stops(), Script({}, room=3)
    driver = Driver(script, [notes], monotonic=lambda: script.now)
    totals = driver.run(tasks(10))
    assert notes.ends == {0: (State.DONE, 1), 1: (State.FAILED, 1), 2: (State.FAILED, 1)}
    assert (totals.done, totals.failed, totals.running) == (1, 2, 0)


def test_fewer_run_in_parallel_after_memory_ran_out():
    script = Script({2: failing(Failure.MEMORY)}, room=4)
    _, notes, totals = drive(script, tasks(40))
    assert script.most == 4
    assert max(notes.parallel[10:]) == 3
    assert totals.done == 40


def test_workers_that_begin_late_are_waited_for():
    class Late(Script):
        def free(self):
            return super().free() if self.now > 3 else 0

    _, _, totals = drive(Late({}), tasks(3))
    assert totals.done == 3


def test_memory_that_runs_out_with_one_task_still_leaves_one():
    _, notes, _ = drive(Script({0: failing(Failure.MEMORY, 9)}, room=1), tasks(2))
    assert notes.ends == {0: (State.FAILED, 3), 1: (State.DONE, 1)}


def test_draining_ends_what_runs_and_begins_nothing():
    class Drains(Notes):
        def ended(self, task, outcome, tries):
            super().ended(task, outcome, tries)
            driver.drain()

    notes, script = Drains(), Script({})
    driver = Driver(script, [notes], monotonic=lambda: script.now)
    totals = driver.run(tasks(10))
    assert set(notes.ends) == {0, 1}
    assert (totals.done, totals.running) == (2, 0)


def test_endless_inputs_are_read_no_further_than_there_is_room():
    taken = count()

    def endless():
        for number in taken:
            yield Task(number, "a.mp4", str(number))

    class Stops(Notes):
        def ended(self, task, outcome, tries):
            if task.number == 50:
                driver.drain()

    script = Script({})
    driver = Driver(script, [Stops()], monotonic=lambda: script.now)
    driver.run(endless())
    assert next(taken) <= 50 + 3


def test_when_many_wait_for_another_try_no_new_task_begins():
    """A service that is down fails every task; the list of those waiting stays short."""
    script = Script({n: failing(Failure.TRANSIENT) for n in range(5000)}, room=50)
    waiting = []

    class Counts(Listener):
        def tick(self, totals):
            waiting.append(totals.waiting)

    driver = Driver(script, [Counts()], monotonic=lambda: script.now / 1000)
    totals = driver.run(tasks(5000))
    assert totals.done == 5000
    assert 900 < max(waiting) <= 1000 + 50


def test_a_bad_row_fails_without_a_worker_and_a_bad_manifest_after_the_rest():
    def rows():
        yield Task(0, "", "row-0", problem="no input")
        yield Task(1, "a.mp4", "a")
        raise ConfigError("the manifest ends early")

    script, notes = Script({}), Notes()
    driver = Driver(script, [notes], monotonic=lambda: script.now)
    with pytest.raises(ConfigError, match="ends early"):
        driver.run(rows())
    assert notes.ends == {0: (State.FAILED, 1), 1: (State.DONE, 1)}
    assert [number for _, number in script.begun] == [1]
