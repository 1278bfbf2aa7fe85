"""Executor on a Ray cluster: actors that keep the networks loaded, each running a task at a time.

Ray is imported here only, when a batch asks for it. An actor takes tasks once it has begun, so
actors that the cluster has no room for yet hold up nothing, and the autoscaler sees them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from maskstream.pipeline.addresses import is_url
from maskstream.pipeline.batch.tasks import Failure, OpenWork, Outcome, Task, Work
from maskstream.pipeline.errors import ClusterError
from maskstream.pipeline.extras import need
from maskstream.pipeline.runs.outputs import library_versions

_CLIENT_PORT = 10001
_CONNECT_S = 10.0
_FALSE_STARTS = 8  # actors lost before they answered, in a row
_INSTALL = "pip install 'maskstream[batch]'"


@dataclass(frozen=True, slots=True)
class RayPlace:
    """Where and how tasks run on Ray.

    address: `ray://HOST:PORT` (Ray Client), or `HOST:PORT` of a cluster this machine belongs to;
    None for that of `RAY_ADDRESS`, or else one that begins on this machine. cores, gpus: of each
    actor; gpus may be a share, 0.25. actors: their number; None for as many as the nodes have cores
    and GPUs for when the batch begins.
    """

    address: str | None
    cores: int = 2
    gpus: float = 0.0
    actors: int | None = None


class RayPool:
    """Runs tasks in actors of a Ray cluster. See `Executor`.

    Raises:
        MissingExtraError: Ray is not installed. ClusterError: there is no cluster at the address,
            its nodes have too few cores or GPUs, or its maskstream has other versions.
    """

    def __init__(self, open_work: OpenWork, place: RayPlace) -> None:
        self._ray = need("ray", "a batch on a cluster", _INSTALL)
        self._errors = need("ray.exceptions", "a batch on a cluster", _INSTALL)
        self._place = place
        self._connect()
        options = {"num_cpus": place.cores, "num_gpus": place.gpus, "max_restarts": 0}
        self._actor = self._ray.remote(**options)(RayWorker)
        self._open_work = self._ray.put(open_work)
        self._starting: dict[Any, Any] = {}  # actors by the reference of their first answer
        self._idle: list[Any] = []
        self._false_starts = 0  # in a row
        self._busy: dict[Any, tuple[Any, Task]] = {}
        for _ in range(place.actors or self._room()):
            self._start()

    def free(self) -> int:
        """See `Executor`."""
        return len(self._idle)

    def submit(self, task: Task) -> None:
        """See `Executor`."""
        actor = self._idle.pop()
        self._busy[actor.run.remote(task)] = (actor, task)

    def wait(self, timeout_s: float) -> list[tuple[Task, Outcome]]:
        """See `Executor`."""
        waiting = [*self._busy, *self._starting]
        if not waiting:
            time.sleep(timeout_s)
            return []
        found, _ = self._ray.wait(waiting, num_returns=1, timeout=timeout_s)
        if found:  # take what else is there
            found, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        ended = []
        for answer in found:
            if answer in self._starting:
                self._greet(answer)
            else:
                ended.append(self._receive(answer))
        return ended

    def close(self) -> None:
        """See `Executor`."""
        actors = [
            *self._idle,
            *self._starting.values(),
            *(actor for actor, _ in self._busy.values()),
        ]
        for actor in actors:
            with suppress(self._errors.RayError):
                self._ray.kill(actor)
        self._ray.shutdown()

    def _connect(self) -> None:
        place = self._place
        try:
            if place.address is not None:
                _check_listens(place.address)
            if place.address is None:
                self._ray.init(include_dashboard=False, log_to_driver=False)
            else:
                self._ray.init(place.address, log_to_driver=False)
        except (OSError, RuntimeError, ValueError, self._errors.RayError) as error:
            raise ClusterError(
                f"There is no Ray cluster at {place.address}: {_reason(error)}"
            ) from error

    def _room(self) -> int:
        """How many actors the nodes have cores and GPUs for."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        try:
            return room_of(nodes, self._place)
        except ClusterError:
            self._ray.shutdown()
            raise

    def _start(self) -> None:
        actor = self._actor.remote(self._open_work, os.getcwd())
        self._starting[actor.versions.remote()] = actor

    def _greet(self, answer: Any) -> None:
        """Take a new actor, if it computes with the same libraries."""
        actor = self._starting.pop(answer)
        try:
            theirs = self._ray.get(answer)
        except self._errors.RayError as error:
            self._false_starts += 1
            if getattr(error, "actor_init_failed", False) or self._false_starts >= _FALSE_STARTS:
                why = self._loss_of(error).error
                raise ClusterError(f"No worker can begin on the Ray cluster. {why}") from error
            self._start()
            return
        self._false_starts = 0
        differing = [
            f"{name} {theirs.get(name)} (here {version})"
            for name, version in library_versions().items()
            if theirs.get(name) != version
        ]
        if differing:
            raise ClusterError(
                f"The Ray cluster has other versions: {', '.join(differing)}. Masks would depend "
                "on where they are made: install the same ones."
            )
        self._idle.append(actor)

    def _receive(self, answer: Any) -> tuple[Task, Outcome]:
        """The outcome of an actor's task, also if the actor died of it."""
        actor, task = self._busy.pop(answer)
        try:
            outcome: Outcome = self._ray.get(answer)
        except self._errors.RayError as error:
            lost = self._loss_of(error)
        else:
            self._idle.append(actor)
            return task, outcome
        with suppress(self._errors.RayError):
            self._ray.kill(actor)  # it may only be out of reach
        self._start()
        return task, lost

    def _loss_of(self, error: Exception) -> Outcome:
        """The outcome of a task whose actor was lost: with its node, or because memory ran out."""
        if isinstance(error, self._errors.OutOfMemoryError):
            return Outcome.failed(
                Failure.MEMORY, "Ray ended the worker because its node ran out of memory."
            )
        return Outcome.failed(Failure.LOST, f"The worker was lost: {_reason(error)}")


class RayWorker:
    """An actor: a worker of the batch on a node of the cluster."""

    def __init__(self, open_work: OpenWork, folder: str) -> None:
        """folder: of the driver; relative paths mean the same here, where it exists."""
        if Path(folder).is_dir():
            os.chdir(folder)
        self._work: Work = open_work()

    def versions(self) -> dict[str, str]:
        """Versions of the libraries on this node."""
        return library_versions()

    def run(self, task: Task) -> Outcome:
        """Run a task."""
        return self._work(task)


def room_of(nodes: Iterable[Mapping[str, float]], place: RayPlace) -> int:
    """How many actors nodes with these resources have room for.

    Raises:
        ClusterError: none has room for one.
    """
    cores, gpus, count = 0.0, 0.0, 0
    for node in nodes:
        cores, gpus = max(cores, node.get("CPU", 0)), max(gpus, node.get("GPU", 0))
        room = int(node.get("CPU", 0) // place.cores)
        if place.gpus:
            room = min(room, _shares(node.get("GPU", 0), place.gpus))
        count += room
    if count:
        return count
    if cores < place.cores:
        raise ClusterError(
            f"The largest node of the Ray cluster has {cores:.0f} cores, fewer than "
            f"--per-video-cores {place.cores}."
        )
    raise ClusterError(
        f"The Ray cluster has no node with {place.cores} cores and --gpu-share {place.gpus:g}: at "
        f"most {gpus:g} GPUs are in one."
    )


def _shares(gpus: float, share: float) -> int:
    """How many shares a node's GPUs give; a share below 1 lies within one GPU."""
    if share >= 1:
        return int(gpus // share)
    return int(gpus) * int(1 / share + 1e-9)


def _check_listens(address: str) -> None:
    """Raise `OSError` if nobody listens there; Ray itself finds out after minutes."""
    place = urlsplit(address if is_url(address) else f"//{address}")
    with socket.create_connection((place.hostname, place.port or _CLIENT_PORT), _CONNECT_S):
        pass


def _reason(error: Exception) -> str:
    """The last line of Ray's message, which says what happened, without its general advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(" Some common causes")[0] if lines else type(error).__name__
