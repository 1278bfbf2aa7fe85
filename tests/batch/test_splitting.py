"""Videos in parts as the driver sees them: one task each, whatever happens to their steps."""

from dataclasses import dataclass, field

import pytest

from maskstream.pipeline.batch.driver import Driver, Listener
from maskstream.pipeline.batch.splitting import SplittingPool
from maskstream.pipeline.batch.tasks import BatchJob, Failure, Outcome, State, Step, Task
from maskstream.pipeline.config import PipelineConfig

PARTS = ((0, 10), (10, 30), (30, 35))
RUN = Outcome(State.DONE, run=10, seconds=2.0)
PLANNED = Outcome(State.DONE, seconds=1.0, parts=PARTS)
JOINED = Outcome(State.DONE, frames=35, objects=3, seconds=0.5)
SKIPPED = Outcome(State.SKIPPED, frames=35)
TASK = Task(0, "film.mp4", "film")


def failed(failure=Failure.FINAL):
    return Outcome.failed(failure, "no frame can be decoded")


@dataclass
class Steps:
    """An executor of `room` tasks that gives the outcomes of steps in turn, without working."""

    outcomes: dict = field(default_factory=dict)
    room: int = 2
    log: list = field(default_factory=list)
    running: list = field(default_factory=list)
    most: int = 0

    def free(self):
        return self.room - len(self.running)

    def submit(self, task):
        assert self.free() > 0
        self.running.append(task)
        self.most = max(self.most, len(self.running))
        self.log.append((task.step, *(task.parts if task.step is Step.PART else ())))

    def wait(self, timeout_s):
        if not self.running:
            return []
        task = self.running.pop(0)
        usual = {Step.PLAN: PLANNED, Step.JOIN: JOINED}.get(task.step, RUN)
        key = task.parts[0] if task.step is Step.PART else task.step
        left = self.outcomes.get(key, [])
        return [(task, left.pop(0) if left else usual)]

    def close(self):
        self.running.clear()


class Ends(Listener):
    def __init__(self):
        self.ends = []
        self.retries = []

    def retried(self, task, outcome, tries, delay_s):
        self.retries.append(outcome.failure)

    def ended(self, task, outcome, tries):
        self.ends.append((task, outcome))


def drive(steps, tasks=(TASK,), *, split=True):
    job = BatchJob("out", PipelineConfig(), split_shots=split)
    ends, now = Ends(), [0.0]

    def clock():
        now[0] += 10
        return now[0]

    totals = Driver(SplittingPool(steps, job), [ends], monotonic=clock).run(iter(tasks))
    return ends, totals


def test_a_video_is_planned_run_in_parts_and_joined():
    steps = Steps()
    ends, totals = drive(steps)
    assert steps.log == [(Step.PLAN,), *((Step.PART, part) for part in PARTS), (Step.JOIN,)]
    ((task, outcome),) = ends.ends
    assert task == TASK
    assert (outcome.state, outcome.frames, outcome.objects) == (State.DONE, 35, 3)
    assert (outcome.run, outcome.seconds, outcome.parts) == (30, 7.5, ())
    assert (totals.done, totals.frames) == (1, 30)


@pytest.mark.parametrize(
    ("split", "row", "plan", "expected"),
    [
        (True, None, Outcome(State.DONE), [Step.PLAN, Step.RUN]),  # one part
        (True, None, SKIPPED, [Step.PLAN]),  # complete already
        (True, False, PLANNED, [Step.RUN]),  # a row that says otherwise
        (False, True, PLANNED, [Step.PLAN, *[Step.PART] * 3, Step.JOIN]),
        (False, None, PLANNED, [Step.RUN]),
    ],
)
def test_which_steps_a_video_takes(split, row, plan, expected):
    steps = Steps({Step.PLAN: [plan]})
    drive(steps, [Task(0, "film.mp4", "film", split_shots=row)], split=split)
    assert [step for step, *_ in steps.log] == expected


def test_a_failed_part_fails_the_video_and_what_was_queued_is_dropped():
    steps = Steps({PARTS[0]: [failed()]})
    ends, totals = drive(steps)
    assert steps.log == [(Step.PLAN,), (Step.PART, PARTS[0]), (Step.PART, PARTS[1])]
    ((_, outcome),) = ends.ends
    assert outcome.error == "Frames 0 to 9: no frame can be decoded"
    assert (totals.failed, totals.frames) == (1, 10)  # the other part went on to its end


@pytest.mark.parametrize("step", [Step.PLAN, PARTS[2], Step.JOIN])
def test_a_video_is_tried_again_as_a_whole(step):
    ends, totals = drive(Steps({step: [failed(Failure.TRANSIENT)]}))
    assert ends.retries == [Failure.TRANSIENT]
    assert (totals.done, totals.failed) == (1, 0)


def test_fewer_parts_run_at_once_after_memory_ran_out():
    steps = Steps({PARTS[1]: [failed(Failure.MEMORY)]}, room=3)
    drive(steps)
    assert steps.most == 3
    again = Steps({PARTS[1]: [failed(Failure.MEMORY)]}, room=3)
    pool = SplittingPool(again, BatchJob("out", PipelineConfig(), split_shots=True))
    pool.submit(TASK)
    while not pool.wait(0):
        pass
    again.most = 0
    pool.submit(TASK)
    while not pool.wait(0):
        pass
    assert again.most == 1


def test_other_videos_wait_while_parts_do():
    steps = Steps(room=2)
    tasks = [Task(n, f"{n}.mp4", str(n)) for n in range(6)]
    _, totals = drive(steps, tasks)
    assert totals.done == 6
    assert steps.most == 2
    plans = [at for at, (step, *_) in enumerate(steps.log) if step is Step.PLAN]
    assert plans[2] > 6  # the parts of the first two come first
