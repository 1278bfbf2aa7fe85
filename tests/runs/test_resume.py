"""What `run --resume` goes on with, what it refuses, and that a refusal leaves the store alone."""

import json
import shutil

import cv2
import numpy as np
import pytest

from maskstream.pipeline.config import RENAMED_KEYS
from maskstream.pipeline.runs.outputs import library_versions
from maskstream.pipeline.sources.identity import identity_of
from maskstream.pipeline.store import MaskStore
from tests.support.media import moving_shapes, write_video
from tests.support.stores import assert_equal, files

CLICK = {"frame": 0, "type": "point", "object": 1, "xy": [80, 45], "label": 1}
NAME = {"frame": 2, "type": "rename", "object": 1, "name": "cup"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips that differ in pixels only, the first in another container, and prompts."""
    place = tmp_path_factory.mktemp("resuming")
    frames, _ = moving_shapes(6, (90, 160), shapes=2, seed=1)
    for name, pixels in (("clip.mp4", frames), ("other.mp4", 255 - frames), ("clip.mkv", frames)):
        write_video(place / name, pixels)
    for name, events in (("a.json", [CLICK]), ("b.json", [CLICK | {"xy": [20, 20]}])):
        (place / name).write_text(json.dumps({"version": 1, "events": events}))
    return place


@pytest.fixture
def run(cli, folder):
    """Run on one of the clips, with one of the prompts; gives the exit code and what was said."""

    def call(store, *options, source="clip.mp4", prompts="a.json"):
        given = ("--no-refine", "--prompts", folder / prompts, "--quiet")
        code, _, err = cli("run", folder / source, "-o", store, *given, *options)
        return code, " ".join(err.split())

    return call


@pytest.fixture
def begun(run, folder, tmp_path):
    """A copy of a finished store of the first clip, up to `end`, which is made once."""

    def call(end=None):
        made = folder / f"{end}.zarr"
        if not made.exists():
            code, err = run(made, *(() if end is None else ("--end", end)))
            assert code == 0, err
        shutil.copytree(made, tmp_path / "o.zarr")
        return tmp_path / "o.zarr"

    return call


def edit(store, **attributes):
    """Change what the store says it was made with."""
    root = store / "zarr.json"
    content = json.loads(root.read_text())
    content["attributes"]["attributes"] |= attributes
    root.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({"source": "other.mp4"}, "another source"),
        ({"source": "clip.mkv"}, "another source"),
        ({"prompts": "b.json"}, "other prompts"),
        (["--set", "keyframes.interval=4"], "keyframes.interval 8 (now 4)"),
        (["--set", "tracking.score_min=0.5"], "tracking.score_min 0.4 (now 0.5)"),
        (["--seed"], "seeding.enabled False (now True)"),
        (["--start", "1"], "start None (now 1)"),
        (["--stride", "2"], "stride 1 (now 2)"),
        (["--refine"], "refine None (now True)"),
        (["--backward"], "backward None (now True)"),
        (
            [f"--set=tracking.{key}=0.3" for key in ("score_min", "association_iou_min")]
            + [
                f"--set=seeding.{key}=7"
                for key in ("max_objects", "coarse_points_per_side", "prompts_first")
            ],
            "and 1 more",
        ),
    ],
)
def test_what_would_change_masks_is_refused_and_the_store_stays(run, begun, options, differs):
    store = begun()
    before = files(store)
    named = options if isinstance(options, dict) else {}
    code, err = run(store, "--resume", *(() if named else options), **named)
    assert code == 1
    assert "started with" in err
    assert differs in err
    assert "choose another output or give --overwrite" in err
    assert files(store) == before


@pytest.mark.parametrize(
    "options",
    [
        ["--end", "5"],
        ["--set", "store.commit_frames=2"],
        ["--set", "queue.capacity=1"],
        ["--set", "threads.opencv=2"],
    ],
)
def test_what_changes_no_mask_does_not_matter(run, begun, options):
    store = begun(end=3)
    code, err = run(store, "--resume", *options)
    assert code == 0, err
    assert len(MaskStore(store)) == (5 if "--end" in options else 6)


@pytest.mark.parametrize("end", ["3", "0.1s", "00:00:00:03"])
def test_an_end_before_the_last_frame_is_refused_and_the_store_stays(run, begun, end):
    store = begun(end=5)
    before = files(store)
    code, err = run(store, "--resume", "--end", end)
    assert (code, f"has frames up to 4, which is beyond the end {end}" in err) == (1, True)
    assert files(store) == before
    code, err = run(store, "--resume", "--end", "5")
    assert (code, len(MaskStore(store))) == (0, 5), err


def test_a_time_counts_from_the_first_frame_of_the_source(run, folder, tmp_path):
    (folder / "later.json").write_text(json.dumps({"version": 1, "events": [CLICK | {"frame": 2}]}))
    for end, expected in (("0.16s", 0), ("0.12s", 1), ("0.2s", 0)):
        options = ("--resume", "--start", "2", "--end", end)
        code, err = run(tmp_path / "o.zarr", *options, prompts="later.json")
        assert code == expected, err
    assert MaskStore(tmp_path / "o.zarr").indices.tolist() == [2, 3, 4]


def test_an_end_beyond_the_video_may_become_its_last_frame(run, begun):
    store = begun(end=50)
    code, err = run(store, "--resume", "--end", "6")
    assert (code, len(MaskStore(store))) == (0, 6), err


def test_what_was_resumed_is_what_one_run_makes(run, begun, folder):
    store = begun(end=3)
    code, err = run(store, "--resume")
    assert code == 0, err
    code, err = run(folder / "None.zarr", "--resume")  # made here if it was not before
    assert code == 0, err
    assert files(store) == files(folder / "None.zarr")


@pytest.mark.parametrize(
    ("attributes", "differs"),
    [
        ({"model": {"name": "lite", "hash": "0123"}}, "model lite 0123 (now lite "),
        ({"memory": "0123"}, "memory 0123 (now "),
        ({"versions": library_versions() | {"openvino": "2024.0"}}, "openvino 2024.0 (now "),
        ({"versions": library_versions() | {"zarr": "3.0.0"}}, None),
        ({"config": {}}, "keyframes.cut_residual None (now 0.55)"),
    ],
)
def test_other_models_and_libraries_are_refused(run, begun, attributes, differs):
    store = begun(end=3)
    edit(store, **attributes)
    code, err = run(store, "--resume")
    assert code == (0 if differs is None else 1), err
    assert (differs or "") in err


def test_threads_and_libraries_matter_only_where_frames_are_missing(run, begun):
    store = begun(end=3)
    edit(store, versions=library_versions() | {"openvino": "2024.0"})
    more_threads = ("--resume", "--set", "threads.inference=3")
    assert run(store, *more_threads, "--end", "3")[0] == 0
    assert len(MaskStore(store)) == 3
    code, err = run(store, *more_threads, "--end", "5")
    assert (code, "threads.inference" in err, "openvino 2024.0" in err) == (1, True, True)
    edit(store, memory="0123")
    assert run(store, *more_threads, "--end", "3")[0] == 1


def test_moved_file_is_the_same_source(run, begun, folder):
    store = begun(end=3)
    moved = shutil.copy(folder / "clip.mp4", folder / "moved.mp4")
    code, err = run(store, "--resume", source="moved.mp4")
    assert code == 0, err
    assert MaskStore(store).source.name == str(moved)
    assert MaskStore(store).source.frame_count == 6


def test_store_of_before_there_were_identities_goes_by_the_name(run, begun, folder):
    store = begun(end=3)
    edit(store, identity=None)
    shutil.copy(folder / "clip.mp4", folder / "moved.mp4")
    code, err = run(store, "--resume", source="moved.mp4")
    assert (code, "moved.mp4" in err) == (1, True)
    assert run(store, "--resume")[0] == 0


def test_store_with_the_key_names_of_an_earlier_version_is_resumed(run, begun):
    store = begun(end=3)
    config = json.loads((store / "zarr.json").read_text())["attributes"]["attributes"]["config"]
    for old, new in RENAMED_KEYS.items():
        (old_section, before), (section, now) = old.split("."), new.split(".")
        if now in config[section]:  # else renamed from another of its names
            config.setdefault(old_section, {})[before] = config[section].pop(now)
    edit(store, config=config)
    code, err = run(store, "--resume")
    assert code == 0, err
    assert len(MaskStore(store)) == 6


@pytest.mark.parametrize("end", [None, 3])
def test_names_may_follow_and_change_no_mask(run, begun, folder, end):
    (folder / "named.json").write_text(json.dumps({"version": 1, "events": [CLICK, NAME]}))
    store = begun(end)
    before = list(MaskStore(store))
    code, err = run(store, "--resume", prompts="named.json")
    assert code == 0, err
    masks = MaskStore(store)
    assert (len(masks), masks.complete, masks.names) == (6, True, {1: "cup"})
    for one, other in zip(before, masks, strict=False):
        assert_equal(one, other)
    code, err = run(store, "--resume")  # without the name: it stays
    assert code == 0, err
    assert MaskStore(store).names == {1: "cup"}


def images(folder, *values):
    folder.mkdir()
    for i, value in enumerate(values):
        cv2.imwrite(str(folder / f"{i:03d}.bmp"), np.full((4, 6, 3), value, np.uint8))
    return folder


def test_identity_is_the_content_not_the_name(tmp_path):
    (tmp_path / "a").write_bytes(bytes(5 << 20))
    (tmp_path / "b").write_bytes(bytes(5 << 20))
    assert identity_of(tmp_path / "a") == identity_of(tmp_path / "b")
    for size, place in ((5 << 20, 0), (5 << 20, -1), (4 << 20, None)):
        data = bytearray(size)
        if place is not None:
            data[place] = 1
        (tmp_path / "b").write_bytes(data)
        assert identity_of(tmp_path / "a") != identity_of(tmp_path / "b")
    assert identity_of(tmp_path / "missing.mp4") is None


def test_identity_of_images_is_that_of_the_first_and_last_and_all_sizes(tmp_path):
    same = [images(tmp_path / name, 1, 2, 3) for name in "ab"]
    others = [images(tmp_path / f"c{i}", *v) for i, v in enumerate([(9, 2, 3), (1, 2, 9), (1, 3)])]
    found = [identity_of(folder) for folder in (*same, *others)]
    assert found[0] == found[1] == identity_of(tmp_path / "a" / "%03d.bmp")
    assert found[0]["files"] == 3
    assert not [other for other in found[2:] if other == found[0]]
