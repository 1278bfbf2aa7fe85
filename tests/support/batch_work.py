"""Work for the pools of a batch that is quick: a task does what its name says."""

import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from maskstream.pipeline.batch.failures import outcome_of
from maskstream.pipeline.batch.tasks import Outcome, State, Task, Work

_LIMIT = 8 << 30


@dataclass(frozen=True)
class OpenDeeds:
    """Makes the work of a worker."""

    def __call__(self) -> Work:
        return deed


def deed(task: Task) -> Outcome:
    """Do what the task's name says; the outcome's host is the process's number."""
    try:
        _do(task)
    except Exception as error:
        return outcome_of(error)
    return Outcome(State.DONE, host=str(os.getpid()), frames=1, run=1)


def _do(task: Task) -> None:
    match task.name:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill once" if not Path(task.source).exists():
            Path(task.source).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
        case "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        case "allocate":
            import numpy as np

            resource.setrlimit(resource.RLIMIT_AS, (_LIMIT, _LIMIT))
            np.ones(2 * _LIMIT, np.uint8)
        case "hold":  # until a file `go` appears beside the source
            Path(task.source).touch()
            while not Path(task.source).with_name("go").exists():
                time.sleep(0.05)
        case "threads":
            Path(task.source).write_text(os.environ.get("OPENBLAS_NUM_THREADS", ""))
        case "linger":
            Path(f"{task.source}.part").write_text(str(os.getpid()))
            Path(f"{task.source}.part").rename(task.source)
            time.sleep(600)
