"""A Ray cluster of two nodes on this machine: workers and a node that are killed, versions."""

import json
from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip("ray")

from maskstream.pipeline.batch.driver import Driver, Listener  # noqa: E402
from maskstream.pipeline.batch.on_ray import RayPlace, RayPool  # noqa: E402
from maskstream.pipeline.batch.tasks import Failure, State, Task  # noqa: E402
from maskstream.pipeline.errors import ClusterError  # noqa: E402
from tests.support.batch_work import OpenDeeds  # noqa: E402
from tests.support.browser import free_port  # noqa: E402
from tests.support.media import moving_shapes, write_video  # noqa: E402
from tests.support.stores import files  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
]


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of a head without cores and two nodes of two cores."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    port = free_port()  # the server of the cluster before may still hold its own
    head = {"num_cpus": 0, "ray_client_server_port": port}
    made = Cluster(initialize_head=True, head_node_args=head)
    nodes = [made.add_node(num_cpus=2) for _ in range(2)]
    made.nodes, made.client = nodes, f"ray://127.0.0.1:{port}"
    yield made
    ray.shutdown()
    made.shutdown()


class Notes(Listener):
    def __init__(self):
        self.outcomes = {}
        self.failures = []
        self.reasons = []

    def retried(self, task, outcome, tries, delay_s):
        self.failures.append((task.number, outcome.failure))
        self.reasons.append(outcome.error)

    def ended(self, task, outcome, tries):
        self.outcomes[task.number] = outcome


def drive(pool, deeds, notes):
    try:
        Driver(pool, [notes]).run(Task(n, *deed) for n, deed in enumerate(deeds))
    finally:
        pool.close()
    return notes


def test_tasks_run_on_both_nodes_and_a_killed_worker_is_replaced(cluster, tmp_path):
    pool = RayPool(OpenDeeds(), RayPlace(cluster.address))
    deeds = [("", "pid")] * 4 + [(str(tmp_path / "once"), "kill once")] + [("", "pid")] * 4
    notes = drive(pool, deeds, Notes())
    assert {outcome.state for outcome in notes.outcomes.values()} == {State.DONE}
    assert notes.failures == [(4, Failure.LOST)]
    assert "died" in notes.reasons[0]
    assert len({outcome.host for outcome in notes.outcomes.values()}) >= 2


def test_what_a_lost_node_ran_is_run_on_another(cluster, tmp_path):
    marks = [tmp_path / str(number) for number in range(2)]

    class LosesNode(Notes):
        def tick(self, totals):
            if cluster.nodes and all(mark.exists() for mark in marks):
                cluster.remove_node(cluster.nodes.pop(), allow_graceful=False)
                cluster.nodes.clear()

        def retried(self, task, outcome, tries, delay_s):
            super().retried(task, outcome, tries, delay_s)
            (tmp_path / "go").touch()

    pool = RayPool(OpenDeeds(), RayPlace(cluster.address))
    notes = drive(pool, [(str(mark), "hold") for mark in marks] + [("", "pid")], LosesNode())
    assert {outcome.state for outcome in notes.outcomes.values()} == {State.DONE}
    assert len(notes.outcomes) == 3
    assert [failure for _, failure in notes.failures] == [Failure.LOST]


@pytest.mark.parametrize("by_client", [False, True])
def test_the_command_makes_the_stores_that_single_runs_make(
    by_client, cluster, cli, tmp_path, monkeypatch
):
    on = cluster.client if by_client else "ray"
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    clips = tmp_path / "clips"
    clips.mkdir()
    for seed in range(2):
        frames, _ = moving_shapes(8, (90, 160), shapes=2, seed=seed)
        write_video(clips / f"c{seed}.mp4", frames)
    code, out, err = cli("batch", clips, "-o", tmp_path / "out", "--on", on, "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["done"] == 2
    for seed in range(2):
        single = tmp_path / f"{seed}.zarr"
        assert cli("run", clips / f"c{seed}.mp4", "-o", single, "--quiet")[0] == 0
        assert files(single) == files(tmp_path / f"out/c{seed}.zarr")


def test_a_film_in_parts_is_the_one_that_processes_make(cluster, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    scenes = [moving_shapes(12, (90, 160), shapes=2, seed=seed)[0] for seed in (1, 2)]
    film = write_video(tmp_path / "film.mp4", np.concatenate([scenes[0], 255 - scenes[1]]))
    stores = []
    for on in ("local", "ray"):
        words = ("-o", tmp_path / on, "--on", on, "--split-shots", "--part-min", "0.4", "--json")
        code, out, err = cli("batch", film, *words)
        assert code == 0, err
        assert json.loads(out.splitlines()[-1])["frames"] == 24
        stores.append(files(tmp_path / on / "film.zarr"))
    assert stores[0] == stores[1]


def test_stores_are_the_same_on_one_two_and_four_nodes(cli, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    frames, _ = moving_shapes(4, (90, 160), shapes=2, seed=1)
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips/c.mp4", frames)
    single = tmp_path / "single.zarr"
    words = ("--set", "threads.inference=1", "--quiet")
    assert cli("run", tmp_path / "clips/c.mp4", "-o", single, *words)[0] == 0
    manifest = tmp_path / "clips/m.csv"
    manifest.write_text("input,output\n" + "".join(f"c.mp4,{n}\n" for n in range(4)))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    head = {"num_cpus": 0, "ray_client_server_port": free_port()}
    made = Cluster(initialize_head=True, head_node_args=head)
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    nodes = 0
    try:
        for count in (1, 2, 4):
            while nodes < count:
                made.add_node(num_cpus=1)
                nodes += 1
            out = tmp_path / f"on-{count}"
            options = ("--on", "ray", "--workers", count, "--per-video-cores", 1, "--json")
            code, _, err = cli("batch", manifest, "-o", out, *options)
            assert code == 0, err
            for number in range(4):
                assert files(out / f"{number}.zarr") == files(single)
    finally:
        ray.shutdown()
        made.shutdown()


def test_workers_with_other_libraries_are_refused(tmp_path, monkeypatch):
    """The nodes find a package of this name first, whose version is another one."""
    from ray.cluster_utils import Cluster

    described = tmp_path / "zarr-1.2.3.dist-info/METADATA"
    described.parent.mkdir()
    described.write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 1.2.3\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    head = {"num_cpus": 1, "ray_client_server_port": free_port()}
    made = Cluster(initialize_head=True, head_node_args=head)
    pool = RayPool(OpenDeeds(), RayPlace(made.address, cores=1))
    try:
        with pytest.raises(
            ClusterError, match=r"other versions: zarr 1\.2\.3 \(here .*install the"
        ):
            drive(pool, [("", "pid")], Notes())
    finally:
        made.shutdown()


def test_nodes_without_memory_are_a_sentence():
    from ray.cluster_utils import Cluster

    monitor = {"memory_usage_threshold": 0.001, "memory_monitor_refresh_ms": 250}
    made = Cluster(True, head_node_args={"num_cpus": 1, "_system_config": monitor})
    pool = RayPool(OpenDeeds(), RayPlace(made.address, cores=1))
    try:
        with pytest.raises(ClusterError, match=r"No worker can begin.*ran out of memory"):
            drive(pool, [("", "pid")], Notes())
    finally:
        made.shutdown()


def test_more_cores_than_there_are_is_a_sentence(cluster):
    with pytest.raises(ClusterError, match="fewer than"):
        RayPool(OpenDeeds(), RayPlace(cluster.address, cores=64))


def test_no_cluster_is_a_sentence():
    with pytest.raises(ClusterError, match="no Ray cluster"):
        RayPool(OpenDeeds(), RayPlace("ray://127.0.0.1:1"))
