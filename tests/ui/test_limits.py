"""Limits of a server: space, sessions and jobs, for one session and for all."""

from __future__ import annotations

import asyncio
import threading

import pytest

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import PageError, ServerFullError
from maskstream.ui.editing.quota import Limits
from maskstream.ui.editing.slots import JobSlots
from maskstream.ui.editing.workspace import Workspace
from maskstream.ui.server.app import SHARED, ServerChoice, limits_of
from maskstream.ui.server.failures import status_of
from tests.support.kinds import encode

KIB = 1 / (1 << 20)  # GB


async def parts(content: bytes, size: int = 500):
    for start in range(0, len(content), size):
        yield content[start : start + size]


def upload(workspace: Workspace, content: bytes, size: int | None = None) -> str:
    return asyncio.run(workspace.upload("clip.mp4", parts(content), size))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", count=30).read_bytes()


def workspace(folder, **limits) -> Workspace:
    return Workspace(folder, PipelineConfig(), Limits(**limits))


def test_no_more_sessions_than_allowed(tmp_path, clip):
    server = workspace(tmp_path, sessions=2)
    tokens = [upload(server, clip) for _ in range(2)]
    with pytest.raises(ServerFullError, match="at most 2 sessions"):
        upload(server, clip)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(tokens)


def test_unused_sessions_make_room(tmp_path, clip):
    now = [1e12]
    server = Workspace(tmp_path, PipelineConfig(), Limits(sessions=1), now_s=lambda: now[0])
    upload(server, clip)
    assert upload(server, clip) in {place.name for place in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("stated", [True, False])
def test_uploads_stay_within_the_space_of_all_sessions(tmp_path, clip, stated, monkeypatch):
    monkeypatch.setattr("maskstream.ui.editing.workspace._MEASURED", 500)
    server = workspace(tmp_path, total_gb=1.5 * len(clip) / 1024 * KIB)
    upload(server, clip)
    with pytest.raises(ServerFullError, match="for sessions on this server are used"):
        upload(server, clip, len(clip) if stated else None)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_session_has_its_own_space(tmp_path, clip):
    server = workspace(tmp_path, session_gb=2 * len(clip) / 1024 * KIB)
    token = upload(server, clip)
    server.quota.check_space(tmp_path / token)
    (tmp_path / token / "export.zip").write_bytes(clip)
    with pytest.raises(ServerFullError, match="This session has used its"):
        server.quota.check_space(tmp_path / token)


def test_a_large_upload_is_refused_before_and_while_it_comes(tmp_path):
    server = workspace(tmp_path, upload_mb=1)
    for size in (2 << 20, None):
        with pytest.raises(PageError, match="too large to upload"):
            upload(server, bytes(2 << 20), size)
    assert not list(tmp_path.iterdir())


def test_a_full_server_is_no_fault_of_the_request():
    assert status_of(ServerFullError("full")) == 503


def test_limits_are_those_of_strangers_where_others_reach_the_page(tmp_path):
    assert limits_of(ServerChoice(tmp_path)).sessions == float("inf")
    shared = limits_of(ServerChoice(tmp_path, host="0.0.0.0", total_gb=7))  # noqa: S104
    assert (shared.sessions, shared.session_gb) == (SHARED.sessions, SHARED.session_gb)
    assert shared.total_gb == 7


def test_jobs_run_in_the_order_they_came():
    slots = JobSlots(running=1, waiting=3)
    tickets = [slots.enter() for _ in range(4)]
    with pytest.raises(ServerFullError, match="1 of this server run, 3 wait"):
        slots.enter()
    assert [slots.before(ticket) for ticket in tickets] == [0, 1, 2, 3]
    order, held, release = [], threading.Event(), threading.Event()

    def run(number: int) -> None:
        with slots.slot(tickets[number], lambda: False) as granted:
            assert granted
            order.append(number)
            held.set()
            release.wait(10)

    threads = [threading.Thread(target=run, args=(number,)) for number in (3, 1, 2, 0)]
    for thread in threads:
        thread.start()
    assert held.wait(10)
    assert order == [0]
    release.set()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3]
    assert slots.before(slots.enter()) == 0


def test_a_waiting_job_stops_at_once():
    slots = JobSlots(running=1, waiting=1)
    first, second = slots.enter(), slots.enter()
    stop, told = threading.Event(), []
    with slots.slot(first, lambda: False):

        def wait() -> None:
            with slots.slot(second, stop.is_set) as granted:
                told.append(granted)

        thread = threading.Thread(target=wait)
        thread.start()
        stop.set()
        slots.notice()
        thread.join(10)
        assert told == [False]
        slots.enter()  # its place is free again
