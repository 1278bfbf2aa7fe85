"""The pool of processes: real ones, which are killed, interrupted and run out of memory."""

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from maskstream.pipeline.batch.failures import outcome_of
from maskstream.pipeline.batch.local import LocalPool, oom_kills
from maskstream.pipeline.batch.tasks import Failure, State, Task
from maskstream.pipeline.errors import SourceNotFoundError, StoreError, StoreLockedError
from tests.support.batch_work import OpenDeeds

WAIT_S = 60


def run(deeds, count=1):
    """Outcomes of tasks that do what their name says, by number."""
    pool = LocalPool(OpenDeeds(), count)
    tasks = [Task(number, "", deed) for number, deed in enumerate(deeds)]
    outcomes = {}
    try:
        while len(outcomes) < len(deeds):
            while tasks and pool.free():
                pool.submit(tasks.pop(0))
            outcomes |= {task.number: outcome for task, outcome in pool.wait(WAIT_S)}
    finally:
        pool.close()
    return outcomes


def test_a_process_stays_for_its_next_task_and_a_dead_one_is_replaced():
    first, second, killed, after = run(["pid", "pid", "kill", "pid"]).values()
    assert first.host == second.host != after.host
    assert (killed.failure, after.state) == (Failure.LOST, State.DONE)
    assert "SIGKILL" in killed.error


def test_one_death_does_not_touch_the_others():
    outcomes = run(["kill", "pid", "exit", "pid", "pid"], count=2)
    assert [outcomes[n].failure for n in range(5)] == [Failure.LOST, None, Failure.LOST, None, None]
    assert "exit code 7" in outcomes[2].error


def test_memory_that_cannot_be_had_is_named():
    (outcome,) = run(["allocate"]).values()
    assert outcome.failure is Failure.MEMORY
    assert "out of memory" in outcome.error


def test_ctrl_c_is_left_to_the_driver():
    (outcome,) = run(["interrupt"]).values()
    assert outcome.state is State.DONE


def test_workers_end_with_a_driver_that_is_killed(tmp_path):
    script = (
        "from maskstream.pipeline.batch.local import LocalPool\n"
        "from maskstream.pipeline.batch.tasks import Task\n"
        "from tests.support.batch_work import OpenDeeds\n"
        "if __name__ == '__main__':\n"
        "    pool = LocalPool(OpenDeeds(), 1)\n"
        f"    pool.submit(Task(0, {str(tmp_path / 'pid')!r}, 'linger'))\n"
        "    pool.wait(60)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    pid_file = tmp_path / "pid"
    _until(pid_file.exists)
    worker = int(pid_file.read_text())
    driver.kill()
    driver.wait()
    _until(lambda: not _runs(worker))


def test_closing_ends_what_runs(tmp_path):
    pool = LocalPool(OpenDeeds(), 1)
    pool.submit(Task(0, str(tmp_path / "pid"), "linger"))
    _until((tmp_path / "pid").exists)
    pool.close()
    assert not _runs(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(("own", "threads"), [(None, "3"), ("1", "1")])
def test_linear_algebra_has_the_cores_of_its_task(tmp_path, monkeypatch, own, threads):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if own is not None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", own)
    before = dict(os.environ)
    pool = LocalPool(OpenDeeds(), 1, cores=3)
    pool.submit(Task(0, str(tmp_path / "threads"), "threads"))
    pool.wait(WAIT_S)
    pool.close()
    assert (tmp_path / "threads").read_text() == threads
    assert dict(os.environ) == before


def raised(error, cause=None):
    try:
        raise error from cause
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (SourceNotFoundError("no file"), Failure.FINAL),
        (raised(StoreError("disk"), OSError(28, "No space left on device")), Failure.TRANSIENT),
        (raised(StoreError("rights"), PermissionError(13, "denied")), Failure.FINAL),
        (raised(StoreError("service"), ConnectionError("reset")), Failure.TRANSIENT),
        (StoreLockedError("written"), Failure.BUSY),
        (MemoryError("1 TB"), Failure.MEMORY),
        (OSError(12, "Cannot allocate memory"), Failure.MEMORY),
        (cv2.error("(-4:Insufficient memory) Failed to allocate 9 bytes"), Failure.MEMORY),
        (RuntimeError("std::bad_alloc"), Failure.MEMORY),
        (RuntimeError("BFCArena: Failed to allocate memory for 9 bytes"), Failure.MEMORY),
        (raised(StoreError("no"), RuntimeError("could not create a memory")), Failure.MEMORY),
        (StoreError("Failed to allocate memory.zarr"), Failure.FINAL),
        (FileExistsError(17, "File exists"), Failure.FINAL),
        (NotADirectoryError(20, "Not a directory"), Failure.FINAL),
        (ZeroDivisionError("a bug"), Failure.FINAL),
    ],
)
def test_what_is_worth_another_try(error, failure):
    outcome = outcome_of(error)
    assert (outcome.state, outcome.failure) == (State.FAILED, failure)
    assert str(error) in outcome.error


def test_the_counter_of_the_kernel_is_read():
    assert oom_kills() >= 0


def _until(true, timeout_s=WAIT_S):
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
