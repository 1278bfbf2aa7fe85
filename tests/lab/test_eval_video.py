"""`eval video` on clips whose masks are known: tasks, baselines, the report, the errors."""

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig, SeedingConfig
from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.lab.evaluation.video.baselines import BASELINES, FlowOnly, StaticMasks
from maskstream.pipeline.lab.evaluation.video.clips import ArrayTruth, Clip, ClipEntry, set_task
from maskstream.pipeline.lab.evaluation.video.evaluate import (
    evaluate_seeded,
    evaluate_videos,
    prompts_for,
)
from maskstream.pipeline.lab.evaluation.video.folders import find_clips
from maskstream.pipeline.lab.evaluation.video.predictions import (
    KeptLabels,
    Visibility,
    score_objects,
)
from maskstream.pipeline.lab.evaluation.video.sheets import write_clip_sheet
from maskstream.pipeline.sources import ArraySource
from maskstream.pipeline.sources.mask_images import read_label_map
from tests.support.media import moving_shapes, write_video

SIZE_HW = (96, 160)
CONFIG = PipelineConfig(seeding=SeedingConfig(prompts_first=128))


def shapes(count=8, shift=0):
    frames, masks = moving_shapes(count, SIZE_HW, shapes=2, seed=3)
    return frames, np.roll(masks, shift, axis=2)


def clip_of(masks, frames=None):
    frames = np.zeros((*masks.shape, 3), np.uint8) if frames is None else frames
    return Clip(ArraySource(list(frames)), ArrayTruth(masks))


def entry_of(name, masks, frames=None):
    return ClipEntry(name, lambda: clip_of(masks, frames))


def write_indexed_png(path: Path, labels) -> Path:
    """An indexed PNG as DAVIS has them: the palette's colors are not the labels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    height, width = labels.shape
    rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in labels)
    palette = bytes((37 * i) % 256 for i in range(3 * 256))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", palette)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def write_frames(folder: Path, frames) -> None:
    folder.mkdir(parents=True)
    for number, rgb in enumerate(frames):
        cv2.imwrite(str(folder / f"{number:05}.jpg"), rgb[..., ::-1])


# What is asked ------------------------------------------------------------------------------------


def test_objects_are_given_where_they_appear_and_judged_after_that():
    masks = np.zeros((4, 6, 8), np.uint8)
    masks[1:, 0, 0] = 7
    masks[2:, 1, :3] = 3
    masks[:, 5] = 255  # void
    task = set_task("late", clip_of(masks))
    assert {frame: list(given) for frame, given in task.given.items()} == {1: [7], 2: [3]}
    assert task.scored == {2: (7,), 3: (3, 7)}
    assert task.objects == (3, 7)
    assert task.given[2][3].sum() == 3
    truth, judged = task.truth(3)
    assert set(np.unique(truth)) == {0, 3, 7}
    assert not judged[5].any()
    assert judged[:5].all()


def test_255_is_the_object_where_it_is_the_only_label():
    masks = np.zeros((3, 6, 8), np.uint8)
    masks[:, 2:4, 2:4] = 255
    task = set_task("binary", clip_of(masks))
    assert task.void is None
    assert task.objects == (255,)


@pytest.mark.parametrize(
    ("kind", "prompt"),
    [
        ("box", {"type": "box", "xyxy": (2.0, 0.0, 7.0, 5.0)}),
        ("click", {"type": "point", "xy": (4.5, 2.5), "label": 1}),
    ],
)
def test_objects_are_given_as_asked(kind, prompt):
    masks = np.zeros((3, 6, 9), np.uint8)
    masks[:, 0:5, 2:7] = 5
    (event,) = prompts_for(set_task("one", clip_of(masks)), kind).events
    assert event.model_dump() == {"frame": 0, "object": 5, **prompt}


# Runs ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    frames, masks = shapes()
    entries = [entry_of("shapes", masks, frames), entry_of("single", masks[:1], frames[:1])]
    return evaluate_videos(CONFIG, entries, baselines=BASELINES)


def test_moving_shapes_are_followed_better_than_held(report):
    (sequence,) = report.sequences
    assert report.skipped == ("single",)
    assert sequence.ours.j.mean > 0.75
    assert sequence.ours.jf > sequence.baselines["still"].jf
    assert sequence.baselines["flow"].jf > sequence.baselines["still"].jf
    assert sequence.baselines["box"].j.mean > 0.6
    assert set(sequence.objects) == {1, 2}
    for row in (sequence.ours, *sequence.baselines.values()):
        assert row.switches == 0
        assert row.effort.frames == 8
        assert row.effort.fps > 1
        assert 50 < row.effort.peak_mb < 4000


def test_report_is_the_agreed_json(report):
    said = json.loads(json.dumps(report.to_json()))
    for row in (said["overall"], *said["baselines"].values()):
        assert {"J", "F", "J&F", "fps", "peak_memory_mb"} <= row.keys()
        assert row["J&F"] == pytest.approx((row["J"] + row["F"]) / 2, abs=1e-4)
    (sequence,) = said["sequences"]
    assert sequence["name"] == "shapes"
    assert list(sequence["baselines"]) == ["still", "flow", "box", "affinity"]
    assert sequence["J"] == said["overall"]["J"]


def test_given_masks_are_repeated_while_nothing_moves():
    frames, masks = shapes()
    still = entry_of("still", np.repeat(masks[:1], 4, 0), np.repeat(frames[:1], 4, 0))
    names = ("still", "flow")
    report = evaluate_videos(CONFIG, [still], baselines={n: BASELINES[n] for n in names})
    (sequence,) = report.sequences
    assert sequence.baselines["still"].jf == 1
    assert sequence.baselines["flow"].j.mean > 0.97
    assert sequence.ours.j.mean > 0.97


@pytest.mark.parametrize("kind", ["box", "click"])
def test_other_prompts_are_run(kind):
    frames, masks = shapes(4)
    entry = entry_of("shapes", masks, frames)
    report = evaluate_videos(CONFIG, [entry], prompt=kind, baselines={})
    assert report.overall.j.mean > 0.5
    low, high = report.interval
    assert low <= report.overall.jf <= high
    assert report.baselines == {}


def test_false_shows_and_blanks_are_counted():
    frames, masks = shapes(4)
    masks[2][masks[2] == 1] = 0  # says that the object is absent, which the clip shows
    entry = entry_of("shapes", masks, frames)
    seen = evaluate_videos(CONFIG, [entry], baselines={}).to_json()["overall"]
    ids = len(np.unique(masks[0])) - 1
    assert seen["absent"] == 1
    assert seen["false_shows"] == 1
    assert seen["visible"] == 3 * ids - 1
    assert seen["blanks"] == 0
    task = set_task("shapes", entry.load())
    nothing = KeptLabels(task.scored)
    for frame in task.scored:
        nothing.put(frame, np.zeros(SIZE_HW, np.uint16))
    scores = score_objects(task, nothing).values()
    found = sum((s.visibility for s in scores), Visibility())
    assert found == Visibility(1, 0, 3 * ids - 1, 3 * ids - 1)


def test_a_contact_sheet_has_the_truth_above_the_prediction(tmp_path):
    frames, masks = shapes(4)
    entry = entry_of("shapes", masks, frames)
    task = set_task("shapes", entry.load())
    nothing = KeptLabels(task.scored)
    for frame in task.scored:
        nothing.put(frame, np.zeros(SIZE_HW, np.uint16))
    write_clip_sheet(tmp_path / "empty.png", task, nothing)
    evaluate_videos(CONFIG, [entry], baselines={}, sheets=tmp_path)
    empty, found = (cv2.imread(str(tmp_path / f"{n}.png")) for n in ("empty", "shapes"))
    assert empty.shape == found.shape
    half = len(found) // 2
    np.testing.assert_array_equal(empty[:half], found[:half])
    assert (empty[half:] != found[half:]).any()


def test_seeded_runs_give_identity_scores():
    frames, masks = shapes(4)
    report = evaluate_seeded(CONFIG, [entry_of("shapes", masks, frames)])
    assert report.overall.scores.hota > 0.2
    said = report.to_json()
    assert said["overall"].keys() == said["sequences"][0].keys() - {"name"}
    assert said["overall"]["id_switches"] == 0


@pytest.mark.parametrize("baseline", [StaticMasks, FlowOnly])
def test_a_later_object_joins_those_that_are_followed(baseline):
    frames, masks = shapes(2)
    method = baseline(CONFIG, Path(), SIZE_HW)
    first, second = clip_frames(frames)
    assert not method.step(first).any()
    method.start(first, {1: masks[0] == 1})
    assert set(np.unique(method.step(second))) == {0, 1}
    method.start(second, {2: masks[1] == 2})
    assert set(np.unique(method.step(second))) == {0, 1, 2}


def clip_frames(frames):
    with ArraySource(list(frames)).open() as reader:
        return list(reader)


# Where clips lie ----------------------------------------------------------------------------------


def test_all_layouts_are_found_and_videos_without_masks_are_named(tmp_path):
    frames, masks = shapes(4)
    write_video(tmp_path / "film.mp4", frames)
    np.savez_compressed(tmp_path / "film_masks.npz", masks=masks)
    write_video(tmp_path / "bare.mp4", frames)
    write_frames(tmp_path / "folder" / "frames", frames)
    for number in (1, 3):  # masks on some frames only
        write_indexed_png(tmp_path / "folder" / "masks" / f"{number:05}.png", masks[number])
    write_frames(tmp_path / "JPEGImages" / "480p" / "davis", frames)
    for number, labels in enumerate(masks):
        write_indexed_png(tmp_path / "Annotations" / "480p" / "davis" / f"{number:05}.png", labels)
    found = find_clips(tmp_path)
    assert found.without_masks == ("bare",)
    tasks = {clip.name: set_task(clip.name, clip.load()) for clip in found.clips}
    assert {name: tuple(task.given) for name, task in tasks.items()} == {
        "davis": (0,),
        "film": (0,),
        "folder": (1,),
    }
    assert tasks["folder"].scored == {3: (1, 2)}
    for task in tasks.values():
        assert np.array_equal(task.truth(3)[0], masks[3])
        assert task.size_hw == SIZE_HW


def test_masks_of_some_frames_of_a_video_may_lie_apart(cli, tmp_path):
    frames, masks = shapes(4)
    videos, apart = tmp_path / "videos", tmp_path / "masks"
    videos.mkdir()
    write_video(videos / "film.mp4", frames)
    write_video(videos / "bare.mp4", frames)
    for number in (1, 3):
        write_indexed_png(apart / "film" / f"{number:05}.png", masks[number])
    found = find_clips(videos, apart)
    assert found.without_masks == ("bare",)
    (clip,) = found.clips
    task = set_task(clip.name, clip.load())
    assert (tuple(task.given), task.scored) == ((1,), {3: (1, 2)})
    write_indexed_png(apart / "film" / "00007.png", masks[3])
    arguments = ("eval", "video", "--data", videos, "--masks", apart, "--no-baselines")
    code, _, err = cli(*arguments)
    assert code == 1
    assert "film has masks for frame 7, but no such frame" in err


@pytest.mark.parametrize("write", [write_indexed_png, lambda p, a: cv2.imwrite(str(p), a)])
def test_label_maps_are_read_as_numbers(tmp_path, write):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write(tmp_path / "labels.png", labels)
    assert np.array_equal(read_label_map(tmp_path / "labels.png"), labels)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "cannot be decoded"), (b"text", "cannot be decoded"), (None, "there is no label map")],
)
def test_unreadable_label_maps_are_a_sentence(tmp_path, content, says):
    file = tmp_path / "labels.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SourceError, match=says):
        read_label_map(file)


def test_an_image_of_colors_is_no_label_map(tmp_path):
    file = tmp_path / "colors.png"
    cv2.imwrite(str(file), np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(SourceError, match="colors"):
        read_label_map(file)


# The command --------------------------------------------------------------------------------------


def write_film(folder: Path, frames, **arrays) -> None:
    write_video(folder / "film.mp4", frames)
    np.savez_compressed(folder / "film_masks.npz", **arrays)


def test_command_prints_json_and_names_what_it_skips(cli, tmp_path):
    frames, masks = shapes(4)
    write_film(tmp_path, frames, masks=masks)
    write_video(tmp_path / "bare.mp4", frames)
    code, out, _ = cli("eval", "video", "--data", tmp_path, "--baselines", "still", "--json")
    said = json.loads(out)
    assert code == 0
    assert said["skipped"] == ["bare"]
    assert [s["name"] for s in said["sequences"]] == ["film"]
    assert list(said["baselines"]) == ["still"]


def test_command_prints_a_table(cli, tmp_path):
    frames, masks = shapes(3)
    write_film(tmp_path, frames, masks=masks)
    write_video(tmp_path / "bare.mp4", frames)
    code, out, _ = cli("eval", "video", "--data", tmp_path, "--no-baselines")
    assert code == 0
    assert "film" in out
    assert "overall" in out
    assert "skipped, without ground-truth masks: bare" in out
    config = tmp_path / "few.yaml"
    config.write_text("seeding: {prompts_first: 128}")
    code, out, _ = cli("eval", "video", "--data", tmp_path, "--seeded", "--config", config)
    assert code == 0
    assert "HOTA" in out


def test_wrong_masks_are_told_what_is_wrong(cli, tmp_path):
    frames, masks = shapes(4)
    for arrays, says in (
        ({"other": masks}, "no array 'masks' but other"),
        ({"masks": masks[:, :50]}, "160x50, but the video is 160x96"),
        ({"masks": masks[:3]}, "4 frames, but masks for 3"),
        ({"masks": masks[0]}, "masks are uint8"),
        ({"masks": np.zeros_like(masks)}, "no object|none of the videos"),
    ):
        write_film(tmp_path, frames, **arrays)
        code, _, err = cli("eval", "video", "--data", tmp_path, "--no-baselines")
        assert code == 1
        assert any(part in err for part in says.split("|")), err
    (tmp_path / "film_masks.npz").write_bytes(b"no archive")
    code, _, err = cli("eval", "video", "--data", tmp_path)
    assert code == 1
    assert "film_masks.npz cannot be read" in err


def test_a_mask_without_its_frame_is_named(cli, tmp_path):
    frames, masks = shapes(2)
    write_frames(tmp_path / "clip" / "frames", frames)
    write_indexed_png(tmp_path / "clip" / "masks" / "00007.png", masks[0])
    code, _, err = cli("eval", "video", "--data", tmp_path)
    assert code == 1
    assert "00007.png is the mask of a frame that is not there" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--data FOLDER"),
        (("--data", "nowhere"), "there is no folder nowhere"),
        (("--data", "."), "no video with masks"),
        (("--data", ".", "--masks", "nowhere"), "there is no folder nowhere"),
        (("--generated", "--masks", "."), "--masks is for the videos of --data"),
        (("--generated", "--images", "nowhere"), "there is no folder nowhere"),
        (("--generated", "--images", "."), "backgrounds"),
        (("--generated", "--sequences", "cut,paste"), "no sequence paste; there are translation"),
        (("--generated", "--baselines", "magic"), "no baseline magic; there are still"),
        (("--generated", "--seeded", "--prompt", "box"), "--seeded gives no prompts"),
    ],
)
def test_wrong_options_are_told_what_is_wrong(cli, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("eval", "video", *arguments)
    assert code == 1
    assert says in err
