"""Small mask stores for tests: frames that are known from their number alone."""

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from maskstream.pipeline.sources import ArrayView
from maskstream.pipeline.store import MaskStoreWriter
from maskstream.pipeline.types import CoveredPart, Frame, FrameResult, ObjectResult, SourceInfo
from maskstream.trackers.state import TrackState

SIZE = (6, 9)
INFO = SourceInfo("clip.mp4", SIZE, Fraction(1, 1000), Fraction(25), rotation_deg=90)
FRAME = Frame(0, 0, INFO.time_base, SIZE, ArrayView(np.zeros((*SIZE, 3), np.uint8)))
BIG = 1 << 62  # more frames than any test writes


def result(index: int, *, pts: int | None = 0, ids: tuple[int, ...] = (1,)) -> FrameResult:
    """Frame `index`: a bar of each object, whose length follows from the number."""
    labels = np.zeros(SIZE, np.uint16)
    for object_id in ids:
        labels[object_id % SIZE[0], : 1 + index % SIZE[1]] = object_id
    objects = tuple(
        ObjectResult(
            i, (0.0, float(i % 6), 1.0, 5.0), 0.5, TrackState.TRACKED, int((labels == i).sum())
        )
        for i in ids
    )
    given_pts = None if pts is None else 40 * index
    return FrameResult(index, given_pts, INFO.time_base, index % 5 == 0, labels, objects)


def overlapping(index: int) -> FrameResult:
    """A frame on which object 2 lies before object 1, which goes on behind it."""
    bar = result(index, ids=(1, 2))
    behind = CoveredPart(1, 2, 0, np.ones((1, 1 + index % SIZE[1]), np.bool_))
    return replace(bar, covered=(behind,))


def expected(index: int) -> FrameResult:
    """The frame that `write` and `abandon` write under this number."""
    return overlapping(index) if index % 3 == 0 else result(index)


def writer(path: Path | str, mode="create", **options) -> MaskStoreWriter:
    """A writer of such frames."""
    return MaskStoreWriter(path, info=INFO, attributes={"model": "lite"}, mode=mode, **options)


def write(path: Path | str, indices: Iterable[int], mode="create", *, complete=True) -> None:
    """Write these frames and close the store."""
    store = writer(path, mode)
    try:
        for index in indices:
            store.append(expected(index))
        store.close(complete=complete)
    except BaseException:
        let_go(store)
        raise


def abandon(path: Path | str, indices: Iterable[int], mode="create", **options) -> None:
    """Write these frames as a process does that is killed: nothing is closed but by the system."""
    store = writer(path, mode, **options)
    for index in indices:
        store.append(expected(index))
    let_go(store)


def let_go(store: MaskStoreWriter) -> None:
    """What the system does when a process ends."""
    store._journal.close()
    store._lock.release()


def assert_equal(a: FrameResult, b: FrameResult) -> None:
    """The two are the same, pixels and hidden parts included."""
    assert np.array_equal(a.labels, b.labels)
    assert replace(a, labels=b.labels) == b
    assert len(a.covered) == len(b.covered)
    for one, other in zip(a.covered, b.covered, strict=True):
        assert (one.object_id, one.y0, one.x0) == (other.object_id, other.y0, other.x0)
        assert np.array_equal(one.mask, other.mask)


def files(path: Path) -> dict[str, bytes]:
    """Every file of a store but the lock, whose content is nobody's business."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "lock"
    }
