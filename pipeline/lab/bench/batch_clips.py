"""`bench batch --video`: one clip many times, by hand, in processes and on nodes of a Ray cluster.

Everything is run as a user runs it, by the command line; the nodes are Ray's own imitation of
machines, of one core each, on this machine.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maskstream.pipeline.errors import MaskstreamError
from maskstream.pipeline.extras import need

WORKERS = (1, 2)
"""Processes of the rows on this machine."""
NODES = (1, 2, 4)
"""Nodes of the rows on Ray, with a worker each."""
_COMMAND = (sys.executable, "-c", "from maskstream.pipeline.cli import main; main()")
_NICE = "RAY_worker_niceness"  # 15 unless it is set: workers would yield to all else


@dataclass(frozen=True, slots=True)
class ClipsRow:
    """One way to run all clips.

    workers: videos at once. seconds: wall time, with the starts of all processes but not of the
    cluster. tasks_s: wall time of the runs on their workers, summed; None by hand. load: average
    of the minute before.
    """

    how: str
    workers: int
    seconds: float
    tasks_s: float | None
    load: float


@dataclass(slots=True)
class ClipsBench:
    """Rows of the table. clips, frames: number of clips, and of frames of each."""

    clips: int
    frames: int
    cores: int
    rows: list[ClipsRow] = field(default_factory=list)

    def fps(self, row: ClipsRow) -> float:
        """Frames a second of a row."""
        return self.clips * self.frames / row.seconds

    def overhead_s(self, row: ClipsRow) -> float:
        """Seconds of a row beyond its share of the runs' time with one worker."""
        alone = next(r for r in self.rows if r.tasks_s is not None)
        return row.seconds - (alone.tasks_s or 0.0) / min(row.workers, self.cores)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        rows = [
            asdict(row) | {"fps": self.fps(row), "overhead_s": self.overhead_s(row)}
            for row in self.rows
        ]
        return asdict(self) | {"rows": rows}


def bench_clips(video: Path, clips: int, frames: int) -> ClipsBench:
    """Run the first `frames` frames of a video `clips` times, in all ways, one after the other.

    Raises:
        MissingExtraError: Ray is not installed. MaskstreamError: a run failed.
    """
    need("ray", "the rows on a cluster", "pip install 'maskstream[batch]'")
    bench = ClipsBench(clips, frames, len(os.sched_getaffinity(0)))
    with TemporaryDirectory(prefix="maskstream-bench-") as folder:
        place = Path(folder)
        manifest = place / "clips.csv"
        rows = [f"{video.resolve()},{n:03d},{frames}\n" for n in range(clips)]
        manifest.write_text("".join(["input,output,end\n", *rows]))
        bench.rows.append(_by_hand(bench, video, place / "hand"))
        for count in WORKERS:
            out = place / f"local-{count}"
            row = _batch(bench, manifest, out, "local", count)
            bench.rows.append(replace(row, how=f"local, workers: {count}"))
        for count in NODES:
            with _nodes(count) as address:
                out = place / f"ray-{count}"
                row = _batch(bench, manifest, out, "ray", count, {"RAY_ADDRESS": address})
            bench.rows.append(replace(row, how=f"Ray, nodes: {count}"))
    return bench


def _by_hand(bench: ClipsBench, video: Path, out: Path) -> ClipsRow:
    out.mkdir()
    load, begun = os.getloadavg()[0], time.perf_counter()
    for number in range(bench.clips):
        words = ["--end", str(bench.frames), "--set", "threads.inference=1", "--quiet"]
        _run(["run", str(video), "-o", str(out / f"{number:03d}.zarr"), *words])
    return ClipsRow("by hand", 1, time.perf_counter() - begun, None, load)


def _batch(
    bench: ClipsBench,
    manifest: Path,
    out: Path,
    on: str,
    workers: int,
    environment: Mapping[str, str] | None = None,
) -> ClipsRow:
    load, begun = os.getloadavg()[0], time.perf_counter()
    words = ["--on", on, "--workers", str(workers), "--per-video-cores", "1", "--json"]
    said = _run(["batch", str(manifest), "-o", str(out), *words], environment)
    seconds = time.perf_counter() - begun
    events = [json.loads(line) for line in said.splitlines()]
    tasks_s = [event["seconds"] for event in events if event["event"] == "done"]
    if len(tasks_s) != bench.clips:
        raise MaskstreamError(f"{bench.clips - len(tasks_s)} of the clips failed on {on}: {said}")
    return ClipsRow(on, workers, seconds, sum(tasks_s), load)


def _run(words: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Run the command line in a process of its own; gives its standard output."""
    done = subprocess.run(
        [*_COMMAND, *words],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MaskstreamError(f"maskstream {' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def _nodes(count: int) -> Iterator[str]:
    """A Ray cluster of a head without cores and `count` nodes of one; gives its address."""
    cluster_utils = need("ray.cluster_utils", "the rows on a cluster", "pip install ray")
    before = os.environ.get(_NICE)
    os.environ[_NICE] = "0"
    try:
        head = {"num_cpus": 0, "ray_client_server_port": _free_port()}
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(count):
                cluster.add_node(num_cpus=1)
            yield str(cluster.address)
        finally:
            cluster.shutdown()
    finally:
        if before is None:
            del os.environ[_NICE]
        else:
            os.environ[_NICE] = before


def _free_port() -> int:
    """A port for Ray Client; the server of the cluster before may still hold the usual one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
