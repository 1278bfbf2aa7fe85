"""The command `batch` on this machine: stores as single runs make them, exit codes, the report."""

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet
import pytest

from maskstream.pipeline.store import MaskStore
from tests.support.media import moving_shapes, write_video
from tests.support.stores import files

CLICK = {"frame": 0, "type": "point", "object": 1, "xy": [80, 45], "label": 1}
PROMPTS = {"version": 1, "events": [CLICK]}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three clips, the second with prompts beside it, and a file that is no video."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(3):
        frames, _ = moving_shapes(8, (90, 160), shapes=2, seed=number)
        write_video(folder / f"c{number}.mp4", frames)
    (folder / "prompts").mkdir()
    (folder / "prompts/c1.json").write_text(json.dumps(PROMPTS))
    (folder / "x.mp4").write_text("no video")
    return folder


@pytest.fixture
def batch(cli):
    """Run the command; gives the exit code, the JSON events, and standard error."""

    def call(*arguments):
        code, out, err = cli("batch", *arguments, "--json")
        return code, [json.loads(line) for line in out.splitlines()], err

    return call


def report_of(out):
    return pyarrow.parquet.read_table(out / "report.parquet").to_pylist()


def test_stores_equal_those_of_single_runs_and_a_second_batch_does_nothing(
    cli, batch, clips, tmp_path
):
    out = tmp_path / "out"
    words = (
        clips,
        "-o",
        out,
        "--workers",
        2,
        "--prompts-dir",
        clips / "prompts",
        "--export",
        "coco",
    )
    code, events, err = batch(*words)
    assert code == 1, err
    end = events[-1]
    assert (end["event"], end["done"], end["failed"], end["frames"]) == ("end", 3, 1, 24)
    for number in range(3):
        single = tmp_path / f"{number}.zarr"
        prompts = ("--prompts", clips / "prompts/c1.json") if number == 1 else ()
        code, _, err = cli("run", clips / f"c{number}.mp4", "-o", single, "--quiet", *prompts)
        assert code == 0, err
        assert files(single) == files(out / f"c{number}.zarr")
        assert json.loads((out / f"c{number}.coco.json").read_text())["images"]

    rows = {row["output"]: row for row in report_of(out)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "c0": "done", "c1": "done", "c2": "done", "x": "failed",
    }  # fmt: skip
    assert "not a video" in rows["x"]["error"]
    assert rows["c0"]["objects"] == len(MaskStore(out / "c0.zarr").objects())
    assert dict(rows["c0"]["versions"])["maskstream"]

    before = files(out / "c0.zarr")
    code, events, _ = batch(*words)
    assert (code, events[-1]["skipped"], events[-1]["frames"]) == (1, 3, 0)
    assert files(out / "c0.zarr") == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["missing.mp4"], "no file"),
        (["{clips}", "--export", "nonsense"], "no format"),
        (["{clips}", "--set", "model=nonsense"], "no model"),
        (["{clips}", "--on", "moon"], "--on is"),
        (["{clips}", "--workers", "0"], "--workers"),
        (["{clips}", "--set", "threads.inference=1"], "--per-video-cores sets"),
        (["{clips}", "--prompts-dir", "{clips}/none"], "with prompts"),
        (["{clips}", "--preset", "fast", "--config", "c.yaml"], "exclude each other"),
        (["{clips}", "--gpu-share", "0.5"], "--on ray"),
        (["{clips}", "-o", "{clips}/out"], "inside"),
    ],
)
def test_wrong_usage_exits_with_2(cli, clips, tmp_path, options, words):
    given = [option.format(clips=clips) for option in options]
    code, _, err = cli("batch", *(() if "-o" in given else ("-o", tmp_path)), *given)
    assert code == 2
    assert words in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_ray_is_not_imported_on_this_machine(clips, tmp_path):
    script = (
        "import sys; from maskstream.pipeline.cli import main\n"
        f"sys.argv = ['maskstream', 'batch', {str(clips / 'x.mp4')!r}, '-o', {str(tmp_path)!r}]\n"
        "try: main()\n"
        "except SystemExit: print(any(name.split('.')[0] == 'ray' for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert "0 done, 0 complete before, 1 failed" in done.stdout
    assert "not a video" in " ".join(done.stderr.split())
    assert report_of(tmp_path)[0]["state"] == "failed"


def test_a_name_that_is_not_utf8_is_a_video_like_others(cli, clips, tmp_path):
    for name in (b"a.mp4", b"\xff\xe9.mp4"):
        shutil.copy(clips / "c0.mp4", os.fsdecode(os.fsencode(tmp_path / "in") + b"-" + name))
    code, out, err = cli("batch", f"{tmp_path}/in-*.mp4", "-o", tmp_path / "out", "--workers", 1)
    assert (code, "2 done" in out) == (0, True), err
    assert [row["output"] for row in report_of(tmp_path / "out")] == ["in-a", r"in-\udcff\udce9"]


def test_an_output_that_cannot_be_written_is_found_first(cli, clips, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/below", "/proc/none", "s3-less://bucket/out"):
        code, printed, err = cli("batch", clips, "-o", out, "--json")
        assert (code, printed) == (2, "")
        assert err.startswith("error: "), err
        assert len(err.splitlines()) == 1


def test_videos_end_also_if_their_report_cannot_be_written(batch, clips, tmp_path):
    (tmp_path / "report.parquet").touch()
    code, events, err = batch(clips / "c0.mp4", "-o", tmp_path)
    assert (code, events[-1]["event"], events[-1]["done"]) == (1, "end", 1)
    assert MaskStore(tmp_path / "c0.zarr").complete
    assert "report.parquet cannot be written" in err
    assert len(err.splitlines()) == 1


def test_results_below_a_pattern_are_no_inputs_of_the_next_batch(batch, clips, tmp_path):
    shutil.copy(clips / "c0.mp4", tmp_path / "c0.mp4")
    words = (f"{tmp_path}/**/*.mp4", "-o", tmp_path / "out", "--export", "overlay", "--workers", 1)
    for state in ("done", "skipped"):
        code, events, err = batch(*words)
        assert (code, events[-1]["total"], events[-1][state]) == (0, 1, 1), err
    assert (tmp_path / "out/c0.overlay.mp4").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--detector", "none.onnx"), "there is no detector none.onnx"),
        (("--classes", "dog"), "give --detector"),
        (("--every", 4), "--every is how often"),
    ],
)
def test_what_is_wrong_for_every_video_is_said_before_the_first(
    batch, clips, tmp_path, options, sentence
):
    code, events, err = batch(clips / "c0.mp4", "-o", tmp_path / "out", *options)
    assert (code, events, sentence in " ".join(err.split())) == (2, [], True)
