"""Live stores: where the source gaps, how the clocks join, what is retained."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import zarr

from maskstream.pipeline.errors import ConfigError, StoreError, StoreExistsError
from maskstream.pipeline.live.live_store import (
    LiveStore,
    RollingStore,
    parse_duration,
    prepare_folder,
)
from maskstream.pipeline.prompts import MAX_OBJECT_ID
from maskstream.pipeline.sources.arrays import ArrayView
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.pipeline.store.check import check_store, repair_store
from maskstream.pipeline.types import Arrival, Frame, FrameResult, ObjectResult, SourceInfo
from maskstream.trackers.state import TrackState
from tests.support.stores import write

SIZE = (18, 32)
TIME_BASE = Fraction(1, 10)
INFO = SourceInfo("camera", SIZE, TIME_BASE, clock="capture", live=True)


def frames_at(*arrivals):
    """Frames with consecutive timestamps; an arrival is seconds, or seconds and a gap before."""
    for index, given in enumerate(arrivals):
        at, gap_s, pts = given if isinstance(given, tuple) else (given, 0.0, index)
        arrival = Arrival(at, 5000 + at, gap_s, "the cable was pulled" if gap_s else "")
        frame = Frame(
            index, pts, TIME_BASE, SIZE, ArrayView(np.zeros((*SIZE, 3), np.uint8)), arrival
        )
        yield (
            frame,
            FrameResult(index, pts, TIME_BASE, False, np.zeros(SIZE, np.uint16), (), (), 5000 + at),
        )


def opener(**options):
    return lambda path: MaskStoreWriter(path, info=INFO, attributes={}, **options)


def test_the_store_says_where_the_gap_is_and_joins_the_clocks(tmp_path):
    sink = LiveStore(opener()(tmp_path / "a.zarr"))
    for frame, result in frames_at(0.0, 0.1, (7.3, 7.2, 2), 7.4, (7.5, 0.0, 900)):
        sink.write(frame, result)
    sink.close(complete=True)
    store = MaskStore(tmp_path / "a.zarr")
    assert store.complete
    assert store.source.clock == "capture"
    gap = {"type": "gap", "frame": 2, "after": 1, "seconds": 7.2, "reason": "the cable was pulled"}
    clocks = [
        {"type": "clock", "frame": index, "pts": pts, "captured_s": captured_s}
        for index, pts, captured_s in ((0, 0, 5000.0), (2, 2, 5007.3), (4, 900, 5007.5))
    ]
    assert store.events == [clocks[0], gap, clocks[1], clocks[2]]


def test_every_frame_keeps_its_capture_time(tmp_path):
    """In the journal, in a finished shard, after a kill, a repair and resuming."""
    path, times = tmp_path / "a.zarr", [0.1 * number for number in range(70)]
    writer = opener()(path)
    for _, result in frames_at(*times):
        writer.append(result)
    journal = MaskStore(path)  # as a kill would leave it
    assert journal.captured_s == pytest.approx([5000 + at for at in times])
    assert journal.frame(69).captured_s == 5000 + times[69]
    writer.append(replace(result, index=70, captured_s=None))
    writer.close(complete=True)
    assert (check_store(path).problems, repair_store(path).problems) == ([], [])
    resumed = opener(mode="resume")(path)
    resumed.append(replace(result, index=71))
    resumed.close(complete=True)
    told = [each.captured_s for each in MaskStore(path).frame_objects()]
    assert told == [*(5000 + at for at in times), None, 5000 + times[69]]
    assert zarr.open_array(path / "frames" / "captured_s", mode="r").shape == (72,)
    with pytest.raises(StoreError, match="live True, now False"):
        MaskStoreWriter(path, info=replace(INFO, live=False), attributes={}, mode="resume")


def test_a_store_of_a_file_has_no_capture_times_and_one_of_old_reads_the_same(tmp_path):
    write(tmp_path / "a.zarr", range(3))
    assert not (tmp_path / "a.zarr" / "frames" / "captured_s").exists()
    root = tmp_path / "a.zarr" / "zarr.json"
    root.write_text(root.read_text().replace(',\n   "live": false', ""))
    assert "live" not in root.read_text()
    old = MaskStore(tmp_path / "a.zarr")
    assert old.captured_s is None
    assert [frame.captured_s for frame in old] == [None] * 3


def test_the_store_says_once_when_no_number_is_left(tmp_path):
    last = ObjectResult(MAX_OBJECT_ID, (0, 0, 32, 18), 1.0, TrackState.TRACKED, 18 * 32)
    sink = LiveStore(opener()(tmp_path / "a.zarr"))
    for frame, result in frames_at(0.0, 0.1, 0.2):
        if frame.index:
            labels = np.full(SIZE, MAX_OBJECT_ID, np.uint16)
            result = replace(result, labels=labels, objects=(last,))
        sink.write(frame, result)
    sink.close(complete=True)
    events = MaskStore(tmp_path / "a.zarr").events
    assert [e for e in events if e["type"] != "clock"] == [{"type": "full", "frame": 1}]


def test_only_the_last_stores_are_retained(tmp_path, monkeypatch):
    monkeypatch.setattr("maskstream.pipeline.live.live_store._PARTS", 2)
    prepare_folder(tmp_path / "live", overwrite=False)
    sink = RollingStore(tmp_path / "live", 4.0, opener())
    for frame, result in frames_at(*(0.5 * number for number in range(21))):
        sink.write(frame, result)
    sink.close(complete=True)
    stores = sorted((tmp_path / "live").iterdir())
    assert len(stores) == 4
    kept = [int(index) for path in stores for index in MaskStore(path).indices]
    assert kept == list(range(kept[0], 21))  # without a hole
    assert 4.0 <= 10.0 - 0.5 * kept[0] <= 8.0
    with pytest.raises(StoreExistsError, match="--overwrite"):
        prepare_folder(tmp_path / "live", overwrite=False)
    prepare_folder(tmp_path / "live", overwrite=True)
    assert list((tmp_path / "live").iterdir()) == []


def test_what_is_no_live_store_is_never_deleted(tmp_path):
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(StoreExistsError, match="no live stores"):
        prepare_folder(tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("0.5", 0.5)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-3", "0", "ten", "nan", "1d"])
def test_wrong_durations(text):
    with pytest.raises(ConfigError, match="10m"):
        parse_duration(text)
