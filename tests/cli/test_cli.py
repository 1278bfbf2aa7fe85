"""The command line as a user meets it: results, bad input as one sentence, Ctrl-C, resuming."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.pipeline.store import MaskStore
from tests.support.media import moving_shapes, write_audio, write_video

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames, _ = moving_shapes(12, (90, 160), shapes=2, seed=1)
    path = tmp_path_factory.mktemp("clip") / "shapes.mp4"
    write_video(path, frames)
    return path


def test_run_writes_store_overlay_and_sheet_and_one_json_line(cli, clip, tmp_path):
    store = tmp_path / "out.zarr"
    overlay, sheet = tmp_path / "overlay.mp4", tmp_path / "sheet.png"
    code, out, err = cli(
        "run", clip, "-o", store, "--overlay", overlay, "--contact-sheet", sheet, "--json"
    )
    assert code == 0, err
    summary = json.loads(out)
    assert summary["frames"] == 12
    assert {"flow", "encode", "read", "write"} <= summary["stage_ms"].keys()
    assert len(MaskStore(store)) == 12
    assert MaskStore(store).complete
    assert overlay.stat().st_size > 0
    assert cv2.imread(str(sheet)) is not None
    code, out, _ = cli("info", store, "--json")
    assert (code, json.loads(out)["frames"]) == (0, 12)
    code, out, _ = cli("info", store)
    assert "160x90" in out


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        (["--start", "3", "--end", "6"], [3, 4, 5]),
        (["--start", "0.2s", "--stride", "3"], [5, 8, 11]),
        (["--end", "00:00:00.08"], [0, 1]),
    ],
)
def test_range_and_stride_keep_the_sources_numbers(cli, clip, tmp_path, options, indices):
    code, _, err = cli("run", clip, "-o", tmp_path / "o.zarr", "--no-seed", "--quiet", *options)
    assert code == 0, err
    assert MaskStore(tmp_path / "o.zarr").indices.tolist() == indices


def bad_inputs(folder: Path, clip: Path) -> dict[str, tuple[Path, str]]:
    """Inputs that cannot work, by name, and a word of the sentence that says why."""
    data = clip.read_bytes()
    files = {
        "text.mp4": b"this is not a video\n" * 50,
        "empty.mp4": b"",
        "truncated.mp4": data[: len(data) // 2],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_audio(folder / "audio.m4a")
    (folder / "no_images").mkdir()
    (folder / "no_images" / "readme.txt").write_text("nothing here")
    return {
        "missing": (folder / "missing.mp4", "no file"),
        "text": (folder / "text.mp4", "text.mp4"),
        "empty": (folder / "empty.mp4", "empty"),
        "truncated": (folder / "truncated.mp4", "truncated.mp4"),
        "audio": (folder / "audio.m4a", "no video"),
        "folder": (folder / "no_images", "image"),
    }


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "truncated", "audio", "folder"])
def test_bad_input_is_one_sentence_and_leaves_no_store(cli, clip, tmp_path, kind):
    path, word = bad_inputs(tmp_path, clip)[kind]
    code, out, err = cli("run", path, "-o", tmp_path / "o.zarr", "--quiet")
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert word in err.lower()
    assert out == ""
    assert not (tmp_path / "o.zarr").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--set", "keyframes.intervall=3"], "no such key"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--prompts", "nowhere.json"], "nowhere.json"),
        (["--model", "nonsense"], "no model 'nonsense'"),
        (["--start", "abc"], "abc"),
        (["--start", "5", "--end", "2"], "must lie after the start"),
        (["--overwrite", "--resume"], "exclude each other"),
    ],
)
def test_bad_option_is_one_sentence(cli, clip, tmp_path, options, word):
    code, _, err = cli("run", clip, "-o", tmp_path / "o.zarr", "--quiet", *options)
    assert code == 1
    assert err.startswith("error: ")
    assert word in err


@pytest.mark.parametrize(
    ("event", "word"),
    [
        ({"frame": 0, "type": "point", "object": 1, "xy": [500, 5]}, "outside the image"),
        ({"frame": 50, "type": "point", "object": 1, "xy": [5, 5]}, "frame 50"),
        ({"frame": 0, "type": "dot", "object": 1, "xy": [5, 5]}, "line 1"),
    ],
)
def test_bad_prompts_are_one_sentence(cli, clip, tmp_path, event, word):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"version": 1, "events": [event]}))
    code, _, err = cli("run", clip, "-o", tmp_path / "o.zarr", "--prompts", prompts, "--quiet")
    assert code == 1
    assert word in err


def test_existing_output_is_refused_kept_then_replaced_or_resumed(cli, clip, tmp_path):
    store = tmp_path / "o.zarr"
    assert cli("run", clip, "-o", store, "--end", "4", "--quiet")[0] == 0
    code, _, err = cli("run", clip, "-o", store, "--quiet")
    assert code == 1
    assert "--overwrite" in err
    assert "--resume" in err
    assert len(MaskStore(store)) == 4
    assert cli("run", clip, "-o", store, "--resume", "--quiet")[0] == 0
    assert len(MaskStore(store)) == 12
    assert cli("run", clip, "-o", store, "--overwrite", "--end", "2", "--quiet")[0] == 0
    assert len(MaskStore(store)) == 2


def test_resumed_store_equals_an_uninterrupted_one(cli, clip, tmp_path):
    asked = ("run", clip, "--no-refine", "--quiet", "-o")
    assert cli(*asked, tmp_path / "whole.zarr")[0] == 0
    assert cli(*asked, tmp_path / "parts.zarr", "--end", "5")[0] == 0
    assert cli(*asked, tmp_path / "parts.zarr", "--resume")[0] == 0
    whole, parts = MaskStore(tmp_path / "whole.zarr"), MaskStore(tmp_path / "parts.zarr")
    assert len(whole) == len(parts) == 12
    for a, b in zip(whole, parts, strict=True):
        assert np.array_equal(a.labels, b.labels)
        assert a.objects == b.objects


def test_a_store_that_is_there_is_told_before_a_model_is_made(cli, clip, tmp_path):
    store, weights = tmp_path / "o.zarr", tmp_path / "weights.pt"
    assert cli("run", clip, "-o", store, "--no-seed", "--quiet")[0] == 0
    weights.write_bytes(b"never opened")
    code, _, err = cli("run", clip, "-o", store, "--model", weights)
    assert (code, "o.zarr already; give --overwrite" in " ".join(err.split())) == (1, True)


def test_resuming_a_complete_store_says_so_and_other_inputs_are_refused(cli, clip, tmp_path):
    source, store = tmp_path / "shapes.mp4", tmp_path / "o.zarr"
    source.write_bytes(clip.read_bytes())
    again = ("run", source, "-o", store, "--no-seed", "--quiet", "--resume")
    assert cli(*again)[0] == 0
    code, _, err = cli(*again)
    assert (code, "complete already (12 frames)" in err) == (0, True)
    prompts = tmp_path / "prompts.json"
    click = {"frame": 0, "type": "point", "object": 1, "xy": [5, 5]}
    prompts.write_text(json.dumps({"version": 1, "events": [click]}))
    assert cli(*again[:-1], "--overwrite", "--end", "6", "--prompts", prompts)[0] == 0
    assert [event["xy"] for event in MaskStore(store).events] == [[5, 5]]
    assert MaskStore(store).attributes["identity"]["bytes"] == source.stat().st_size
    for options, says in (
        (["--start", "2"], "started with start"),
        ([], "other prompts"),
        (["--prompts", prompts, "--model", "lite"], "another source"),
    ):
        if says == "another source":
            source.write_bytes(clip.read_bytes() + b"more")
        code, _, err = cli(*again, *options)
        assert code == 1
        assert says in err
    assert len(MaskStore(store)) == 6


@pytest.mark.parametrize("place", ["file", "proc"])
def test_output_that_cannot_be_written_is_a_sentence(cli, clip, tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    output = tmp_path / "file" / "o.zarr" if place == "file" else Path("/proc/o.zarr")
    code, _, err = cli("run", clip, "-o", output, "--quiet")
    assert code == 1
    assert "cannot be written" in err


def test_info_of_something_else_is_a_sentence(cli, tmp_path):
    code, _, err = cli("info", tmp_path)
    assert code == 1
    assert "no mask store" in err


def test_help_is_instant_because_nothing_heavy_is_imported():
    heavy = "numpy av cv2 openvino zarr torch nncf"
    code = (
        "import sys, maskstream.pipeline.cli\n"
        f"print([m for m in '{heavy}'.split() if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_inference_never_imports_torch(clip, tmp_path):
    code = (
        "import sys\n"
        "from maskstream.pipeline.engine.pipeline import Pipeline\n"
        "from maskstream.pipeline.sources import open_source\n"
        f"list(Pipeline.from_config().stream(open_source({str(clip)!r}, end=2)))\n"
        "print([m for m in ('torch', 'nncf', 'gradio') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_ctrl_c_keeps_what_is_done_and_says_how_to_resume(tmp_path):
    frames, _ = moving_shapes(20, (90, 160), shapes=1)
    clip = tmp_path / "long.mp4"
    write_video(clip, np.concatenate([frames] * 60))
    store = tmp_path / "o.zarr"
    command = [sys.executable, "run_pipeline.py", "run", str(clip), "-o", str(store), "--no-seed"]
    slowly = ["--set", "keyframes.interval=1"]  # the signal comes well before the end
    options = ["--set", "store.commit_frames=8", *slowly, "--quiet"]
    process = subprocess.Popen(command + options, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not committed(store) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert "Traceback" not in err
    done = MaskStore(store)
    assert 1 <= len(done) < 1200
    assert not done.complete
    assert f"{len(done)} frames are safe" in err


def committed(store: Path) -> int:
    try:
        return len(MaskStore(store))
    except Exception:
        return 0


@pytest.mark.parametrize(
    ("arguments", "now"),
    [
        (("run", "clip.mp4", "-o", "o.zarr", "--contact", "sheet.png"), "--contact-sheet"),
        (("export", "o.zarr", "--format", "coco", "--pictures"), "--images"),
        (("eval", "images", "--held-back=6"), "--held-out"),
        (("bench", "live", "--given"), "--boxes"),
    ],
)
def test_renamed_option_is_a_sentence_with_its_name(cli, arguments, now):
    code, out, err = cli(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.endswith(f" is now named {now}\n")
