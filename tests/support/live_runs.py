"""Live runs of tests: pictures that a program gives, commands, and runs until something is seen."""

import threading
from concurrent.futures import Future
from fractions import Fraction

import numpy as np

from maskstream.pipeline.live.endpoints import Endpoint
from maskstream.pipeline.live.session import CallbackSink
from maskstream.pipeline.sources.arrays import ArrayView
from maskstream.pipeline.types import Arrival, Frame, FrameResult, ObjectResult
from maskstream.trackers.state import TrackState

HERE = Endpoint("127.0.0.1", 0)
"""Any free port of the loopback."""
SIZE = (90, 160)
RATE = 30
STREAM_TIME_BASE = Fraction(1, 90_000)
# Deadlines are the bench's business: here the machine may be as slow as it likes.
PATIENT = [
    "live.latency_ms=60000",
    "live.retry_first_s=0.1",
    "threads.inference=1",
    "live.input_shares=[1.0]",
]


class AtOnce:
    """In the place of the keyframes' thread: a frame waits for its keyframe, so runs repeat.

    >>> name = "maskstream.pipeline.live.keyframe_engine.ThreadPoolExecutor"
    >>> monkeypatch.setattr(name, AtOnce)  # doctest: +SKIP
    """

    def __init__(self, *_):
        pass

    def submit(self, work, *given):
        done = Future()
        try:
            done.set_result(work(*given))
        except BaseException as error:  # as the thread would
            done.set_exception(error)
        return done

    def shutdown(self, **_):
        pass


def run_until(session, done, **options):
    """Run and take results until `done(live)` says so; gives all of them and the summary."""
    taken = []

    def take(live):
        taken.append(live)
        if done(live) or len(taken) > 3000:
            session.stop()

    summary = session.run(lambda info: [CallbackSink(take)], **options)
    assert len(taken) <= 3000, "it was waited for in vain"
    return taken, summary


def images(shapes, count):
    """So many stamped pictures, 1/30 s apart, each when the one before has been taken."""
    frames, _ = shapes
    taken = threading.Semaphore(1)

    def come():
        for index in range(count):
            taken.acquire(timeout=30)
            yield frames[index % len(frames)], (10**9 * (index + 30)) // RATE

    return come(), taken


def disc_of(shapes, index):
    """A point inside the second shape on a frame."""
    rows, columns = np.nonzero(shapes[1][index] == 2)
    return float(columns.mean()), float(rows.mean())


def result_of(labels, index=3, pts=180_045):
    """A live frame and its result, with an object more that is out of sight."""
    objects = []
    for found in np.unique(labels[labels > 0]).tolist():
        rows, columns = np.nonzero(labels == found)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        objects.append(
            ObjectResult(found, tuple(map(float, box)), 0.9, TrackState.TRACKED, len(rows))
        )
    objects.append(ObjectResult(60_000, (1.0, 1.0, 5.0, 5.0), 0.2, TrackState.OCCLUDED, 0))
    rgb = np.full((*labels.shape, 3), 90, np.uint8)
    arrival = Arrival(10.0, 1_700_000_000.25)
    frame = Frame(index, pts, STREAM_TIME_BASE, labels.shape, ArrayView(rgb), arrival)
    return frame, FrameResult(index, pts, STREAM_TIME_BASE, True, labels, tuple(objects))
