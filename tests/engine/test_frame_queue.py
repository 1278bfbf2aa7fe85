"""The frame queue: policies, order, drops, and how each side ends the other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from maskstream.pipeline.engine.frame_queue import FrameQueue, Policy
from maskstream.pipeline.errors import ConfigError, QueueClosedError

TIMEOUT_S = 5.0


class BrokenError(Exception):
    pass


@pytest.fixture
def run():
    """Run a callable in another thread."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield pool.submit


Run = Callable[..., "Future[object]"]


@pytest.mark.parametrize(
    ("policy", "capacity", "kept", "dropped"),
    [
        (Policy.WAIT, 5, [0, 1, 2, 3, 4], 0),
        (Policy.DROP_OLDEST, 5, [0, 1, 2, 3, 4], 0),
        (Policy.DROP_OLDEST, 3, [2, 3, 4], 2),
        (Policy.DROP_OLDEST, 1, [4], 4),
        (Policy.LATEST, 1, [4], 4),
        (Policy.LATEST, 8, [4], 4),  # one slot, whatever the capacity
    ],
)
def test_policy_decides_what_is_kept(policy, capacity, kept, dropped):
    queue: FrameQueue[int] = FrameQueue(capacity, policy)
    for item in range(5):
        queue.put(item)
    queue.close()
    assert len(queue) == len(kept)
    assert list(queue) == kept
    assert queue.dropped == dropped


def test_waiting_keeps_everything_in_order(run: Run):
    queue: FrameQueue[int] = FrameQueue(2)

    def produce() -> None:
        for item in range(500):
            queue.put(item)
            assert len(queue) <= 2
        queue.close()

    produced = run(produce)
    assert list(queue) == list(range(500))
    produced.result(TIMEOUT_S)
    assert queue.dropped == 0


def test_get_waits_for_an_item(run: Run):
    queue: FrameQueue[str] = FrameQueue(1)
    got = run(queue.get)
    queue.put("frame")
    assert got.result(TIMEOUT_S) == "frame"


@pytest.mark.parametrize("policy", Policy)
def test_closed_queue_is_drained_and_takes_no_more(policy):
    queue: FrameQueue[int] = FrameQueue(1, policy)
    queue.put(7)
    queue.close()
    with pytest.raises(QueueClosedError):
        queue.put(8)
    assert queue.get() == 7
    with pytest.raises(QueueClosedError):
        queue.get()
    assert list(queue) == []


def test_canceled_queue_forgets_its_items():
    queue: FrameQueue[int] = FrameQueue(4)
    queue.put(1)
    queue.cancel()
    assert len(queue) == 0
    assert list(queue) == []
    with pytest.raises(QueueClosedError):
        queue.put(2)


ENDINGS = [
    pytest.param(FrameQueue.close, QueueClosedError, id="close"),
    pytest.param(FrameQueue.cancel, QueueClosedError, id="cancel"),
    pytest.param(lambda queue: queue.fail(BrokenError("camera")), BrokenError, id="fail"),
]


@pytest.mark.parametrize(("end", "error"), ENDINGS)
def test_ending_releases_a_blocked_put(run: Run, end, error):
    queue: FrameQueue[int] = FrameQueue(1)
    queue.put(0)
    blocked = run(queue.put, 1)
    end(queue)
    with pytest.raises(error):
        blocked.result(TIMEOUT_S)


@pytest.mark.parametrize(("end", "error"), ENDINGS)
def test_ending_releases_a_blocked_get(run: Run, end, error):
    queue: FrameQueue[int] = FrameQueue(1)
    blocked = run(queue.get)
    end(queue)
    with pytest.raises(error):
        blocked.result(TIMEOUT_S)


@pytest.mark.parametrize("use", [lambda q: q.put(2), lambda q: q.get(), next, list])
def test_failure_reaches_both_sides_before_the_items_left(use):
    queue: FrameQueue[int] = FrameQueue(4)
    queue.put(1)
    failure = BrokenError("first")
    queue.fail(failure)
    queue.fail(BrokenError("second"))
    with pytest.raises(BrokenError) as caught:
        use(queue)
    assert caught.value is failure


def test_failure_after_close_still_reaches_the_consumer():
    queue: FrameQueue[int] = FrameQueue(4)
    queue.put(1)
    queue.close()
    queue.fail(BrokenError())
    with pytest.raises(BrokenError):
        next(queue)


def test_no_room_is_an_error():
    with pytest.raises(ConfigError, match="capacity of 1"):
        FrameQueue(0)
