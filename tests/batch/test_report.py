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


def test_an_output_that_is_a_file_is_a_sentence(tmp_path):
    (tmp_path / "out").touch()
    report = Report(job(tmp_path / "out"), Now())
    report.ended(Task(0, "a.mp4", "a"), Outcome(State.DONE), 1)
    with pytest.raises(StoreError, match="cannot be written"):
        report.close()


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
