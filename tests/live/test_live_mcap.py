"""MCAP recordings: split, named so that none is in the way of another, and written out in time."""

from contextlib import suppress

import numpy as np
import pytest

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.splits import NO_SPLIT, Split, parse_split
from tests.support.clock import FakeClock
from tests.support.live_runs import result_of

pytest.importorskip("foxglove")
reader = pytest.importorskip("mcap.reader")
records = pytest.importorskip("mcap.stream_reader")

from mcap.exceptions import McapError  # noqa: E402

from maskstream.pipeline.live.publishers.mcap_recording import McapRecording  # noqa: E402

STARTED = "19700101T012320.000Z"  # the fake clock's
NOISE = np.random.default_rng(0).integers(0, 3, (90, 160)).astype(np.uint16)


def shown(number):
    return result_of(NOISE, number, 3000 * number)


def frames_of(file):
    """The frame indices in a finished file."""
    with file.open("rb") as opened:
        made = reader.make_reader(opened)
        assert made.get_summary() is not None
        return [record(message) for _, _, message in made.iter_messages(topics=["/table"])]


def record(message):
    return int(message.data.partition(b'"frame": ')[2].partition(b",")[0])


def written_frames(file):
    """The frame indices of the whole chunks in a file that is not finished: what a kill leaves."""
    found = []
    with file.open("rb") as opened, suppress(EOFError, McapError):
        for entry in records.StreamReader(opened).records:
            if type(entry).__name__ == "Message" and entry.data.startswith(b'{"type"'):
                found.append(record(entry))
    return found


@pytest.mark.parametrize(
    ("texts", "split"),
    [
        ([], NO_SPLIT),
        (["10m"], Split(600)),
        (["500MB"], Split(None, 500_000_000)),
        (["1.5gb", "90"], Split(90, 1_500_000_000)),
    ],
)
def test_a_split_is_a_time_a_size_or_both(texts, split):
    assert parse_split(texts) == split


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["soon"], "such as 10m"),
        (["5XB"], "such as 500MB"),
        (["0KB"], "above 0"),
        (["1m", "2m"], "one time and one size"),
        (["1MB", "2MB"], "one time and one size"),
    ],
)
def test_another_split_is_a_sentence(texts, says):
    with pytest.raises(ConfigError, match=says):
        parse_split(texts)


def test_a_split_without_a_recording_is_refused(cli):
    code, _, err = cli("live", "lavfi:testsrc2", "--split", "10m", "--quiet")
    assert (code, "mcap:FILE" in err) == (1, True)


def test_a_recording_is_split_by_time_and_every_part_is_complete(tmp_path):
    clock = FakeClock()
    recording = McapRecording(str(tmp_path / "run.mcap"), split=Split(10), clock=clock)
    for number in range(6):
        recording.write(*shown(number))
        clock.now += 4
    recording.close(complete=True)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [
        f"run-{STARTED}.mcap",
        "run-19700101T012332.000Z.mcap",
    ]
    assert [frames_of(file) for file in files] == [[0, 1, 2], [3, 4, 5]]


def test_a_recording_is_split_by_size(tmp_path):
    clock = FakeClock()
    recording = McapRecording(f"{tmp_path}/", split=Split(None, 20_000), clock=clock)
    for number in range(12):
        recording.write(*shown(number))
        clock.now += 1
    recording.close(complete=True)
    files = sorted(tmp_path.iterdir())
    assert len(files) > 2
    assert [n for file in files for n in frames_of(file)] == list(range(12))
    largest_result = 20_000
    assert all(file.stat().st_size < 20_000 + largest_result for file in files)


def test_runs_that_are_started_again_do_not_meet_each_other(tmp_path):
    named = tmp_path / "run.mcap"
    targets = [str(named), str(named), str(named), f"{tmp_path}/runs/", f"{tmp_path}/runs"]
    made = []
    for number, target in enumerate(targets):
        recording = McapRecording(target, clock=FakeClock())
        recording.write(*shown(number))
        recording.close(complete=True)
        made.append(recording.path)
    assert [str(path.relative_to(tmp_path)) for path in made] == [
        "run.mcap",
        f"run-{STARTED}.mcap",
        f"run-{STARTED}-2.mcap",
        f"runs/{STARTED}.mcap",
        f"runs/{STARTED}-2.mcap",
    ]
    assert [frames_of(path) for path in made] == [[0], [1], [2], [3], [4]]


def test_what_was_recorded_is_in_the_file_within_a_second(tmp_path):
    clock = FakeClock()
    recording = McapRecording(str(tmp_path / "run.mcap"), clock=clock)
    kept = []
    for number in range(4):
        recording.write(*shown(number))
        kept.append(written_frames(recording.path))
        clock.now += 0.5
    assert kept == [[], [], [0, 1, 2], [0, 1, 2]]
    clock.now += 0.5
    recording.idle()
    assert written_frames(recording.path) == [0, 1, 2, 3]
    recording.close(complete=True)


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        McapRecording(str(tmp_path / "nowhere" / "run.mcap"))
