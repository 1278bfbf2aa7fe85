"""The report: parts as tasks end, which are one table, here and on a service."""

import json

import fsspec
import pyarrow.dataset
import pyarrow.parquet
import pytest

from maskstream.pipeline.batch.driver import Totals
from maskstream.pipeline.batch.report import Report
from maskstream.pipeline.batch.tasks import BatchJob, Failure, Outcome, State, Task
from maskstream.pipeline.cli.batch_report import JsonEvents
from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import StoreError


class Now:
    seconds = 1_000_000.0

    def __call__(self):
        return self.seconds


def job(out):
    return BatchJob(str(out), PipelineConfig())


def test_rows_are_on_disk_after_a_minute_and_at_the_end(tmp_path):
    now = Now()
    report = Report(job(tmp_path), now)
    folder = tmp_path / "report.parquet"
    report.ended(Task(0, "a.mp4", "a"), Outcome(State.DONE, frames=3, seconds=1.5), 1)
    assert not folder.exists()
    now.seconds += 60
    report.ended(Task(1, "b.mp4", "b"), Outcome.failed(Failure.FINAL, "It is no video."), 2)
    assert pyarrow.parquet.read_table(folder).num_rows == 2
    report.ended(Task(2, "c.mp4", "c"), Outcome(State.SKIPPED, versions={"zarr": "3"}), 1)
    report.close()
    table = pyarrow.parquet.read_table(folder).to_pylist()
    assert [row["output"] for row in table] == ["a", "b", "c"]
    assert (table[0]["state"], table[0]["frames"], table[0]["seconds"]) == ("done", 3, 1.5)
    assert (table[1]["failure"], table[1]["error"]) == ("final", "It is no video.")
    assert table[2]["versions"] == [("zarr", "3")]


def test_a_second_batch_adds_its_rows(tmp_path):
    for _ in range(2):
        report = Report(job(tmp_path), Now())
        report.ended(Task(0, "a.mp4", "a"), Outcome(State.DONE), 1)
        report.close()
    table = pyarrow.parquet.read_table(tmp_path / "report.parquet")
    assert len(set(table["run"].to_pylist())) == table.num_rows == 2


def test_a_report_on_a_service(tmp_path):
    report = Report(job("memory://masks/out"), Now())
    report.ended(Task(0, "a.mp4", "a"), Outcome(State.DONE), 1)
    report.close()
    found = pyarrow.dataset.dataset(
        "/masks/out/report.parquet", filesystem=fsspec.filesystem("memory")
    )
    assert found.count_rows() == 1


def test_progress_tells_rate_and_time_left(capsys):
    now = [0.0]
    events = JsonEvents(lambda: now[0])
    events.tick(Totals(total=10))
    now[0] = 20.0
    events.tick(Totals(total=10, done=3, failed=1, running=2, frames=100))
    now[0] = 22.0
    events.tick(Totals(total=10, done=4))
    (line,) = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert (event["done"], event["failed"], event["running"]) == (3, 1, 2)
    assert (event["fps"], event["left_s"]) == (5.0, 30.0)


def test_rows_that_cannot_be_written_are_written_with_the_next_part(tmp_path):
    now = Now()
    report = Report(job(tmp_path), now)
    (tmp_path / "report.parquet").touch()
    for name in "ab":
        now.seconds += 60
        report.ended(Task(0, f"{name}.mp4", name), Outcome(State.DONE), 1)
    (tmp_path / "report.parquet").unlink()
    now.seconds += 60
    report.ended(Task(2, "c.mp4", "c"), Outcome(State.DONE), 1)
    report.close()
    table = pyarrow.parquet.read_table(tmp_path / "report.parquet")
    assert table["output"].to_pylist() == ["a", "b", "c"]


def test_a_report_that_cannot_be_written_for_long_keeps_its_last_rows(tmp_path):
    report = Report(job(tmp_path), Now())
    (tmp_path / "report.parquet").touch()
    for number in range(35_000):
        report.ended(Task(number, "a.mp4", str(number)), Outcome(State.DONE), 1)
    (tmp_path / "report.parquet").unlink()
    with pytest.raises(StoreError, match=r"cannot be written: .*; it lacks 10000 videos"):
        report.close()
    table = pyarrow.parquet.read_table(tmp_path / "report.parquet")
    assert table["output"].to_pylist() == [str(number) for number in range(10_000, 35_000)]


def test_names_that_are_not_utf8_are_escaped(tmp_path, capsys):
    task = Task(0, "\udcff\udce9.mp4", "\udcff\udce9")
    outcome = Outcome.failed(Failure.FINAL, "\udcff is no video.")
    report = Report(job(tmp_path), Now())
    report.ended(task, outcome, 1)
    report.close()
    (row,) = pyarrow.parquet.read_table(tmp_path / "report.parquet").to_pylist()
    JsonEvents().ended(task, outcome, 1)
    event = json.loads(capsys.readouterr().out)
    for found in (row, event):
        assert (found["source"], found["output"]) == (r"\udcff\udce9.mp4", r"\udcff\udce9")
        assert found["error"] == r"\udcff is no video."
