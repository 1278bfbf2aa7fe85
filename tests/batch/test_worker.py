"""A worker's tasks in this process: what they write, skip, resume, replace and refuse."""

import json
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from maskstream.pipeline.batch.out_folder import check_out
from maskstream.pipeline.batch.tasks import BatchJob, Failure, State, Task
from maskstream.pipeline.batch.worker import OpenRuns
from maskstream.pipeline.config import load_config
from maskstream.pipeline.exports.output import MARKER
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from tests.support.media import moving_shapes, write_video
from tests.support.stores import INFO, files

CLICK = {"frame": 0, "type": "point", "object": 1, "xy": [80, 45], "label": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("worker")
    write_video(place / "clip.mp4", moving_shapes(6, (90, 160), shapes=2, seed=1)[0])
    (place / "click.json").write_text(json.dumps({"version": 1, "events": [CLICK]}))
    return place


@pytest.fixture(scope="module")
def config():
    return load_config(None, ["store.commit_frames=1", "tracking.refine=false"])


@pytest.fixture
def job(config, tmp_path):
    return BatchJob(str(tmp_path), config)


@pytest.fixture
def clip(folder):
    return Task(0, str(folder / "clip.mp4"), "clip", prompts=str(folder / "click.json"))


def test_a_row_chooses_name_prompts_and_frames(job, clip, tmp_path):
    outcome = OpenRuns(job)()(replace(clip, name="deep/first", start="1", end="4", prompts=None))
    assert (outcome.state, outcome.frames, outcome.run, outcome.error) == (State.DONE, 3, 3, "")
    assert MaskStore(tmp_path / "deep/first.zarr").indices.tolist() == [1, 2, 3]


def test_prompts_decide_whether_objects_are_found(job, clip, folder, tmp_path):
    (folder / "prompts").mkdir()
    (folder / "prompts/clip.json").write_text((folder / "click.json").read_text())
    work = OpenRuns(replace(job, prompts_dir=str(folder / "prompts")))()
    assert work(replace(clip, prompts=None)).state is State.DONE
    store = MaskStore(tmp_path / "clip.zarr")
    assert store.events == [CLICK | {"xy": [80.0, 45.0]}]
    assert store.attributes["config"]["seeding"]["enabled"] is False
    assert work(replace(clip, name="free", prompts=None)).state is State.DONE
    assert MaskStore(tmp_path / "free.zarr").attributes["config"]["seeding"]["enabled"] is True


def test_a_half_done_store_is_continued_to_the_same_bits(job, clip, tmp_path):
    assert OpenRuns(job)()(clip).run == 6
    whole = files(tmp_path / "clip.zarr")
    half = replace(clip, name="half")
    assert OpenRuns(job)()(replace(half, end="3")).run == 3
    outcome = OpenRuns(job)()(half)  # the range has grown
    assert (outcome.state, outcome.frames, outcome.run) == (State.DONE, 6, 3)
    store = MaskStore(tmp_path / "half.zarr")
    assert [f.labels.tobytes() for f in store] == [
        f.labels.tobytes() for f in MaskStore(tmp_path / "clip.zarr")
    ]
    assert OpenRuns(job)()(clip).state is State.SKIPPED
    assert files(tmp_path / "clip.zarr") == whole


def test_a_shorter_range_is_refused_and_not_taken_from_the_longer_one(job, clip, tmp_path):
    work = OpenRuns(job)()
    assert work(replace(clip, end="5")).run == 5
    before = files(tmp_path / "clip.zarr")
    outcome = work(replace(clip, end="3"))
    assert (outcome.failure, files(tmp_path / "clip.zarr")) == (Failure.FINAL, before)
    assert "beyond the end 3" in outcome.error
    assert work(replace(clip, end="5")).state is State.SKIPPED
    outcome = OpenRuns(replace(job, overwrite=True))()(replace(clip, end="3"))
    assert (outcome.state, outcome.frames, outcome.run) == (State.DONE, 3, 3)


def test_a_store_of_other_settings_is_kept_unless_it_may_be_replaced(job, clip, tmp_path):
    assert OpenRuns(job)()(clip).state is State.DONE
    before = files(tmp_path / "clip.zarr")
    keyframes = job.config.keyframes.model_copy(update={"interval": 4})
    other = replace(job, config=job.config.model_copy(update={"keyframes": keyframes}))
    outcome = OpenRuns(other)()(clip)
    assert (outcome.failure, files(tmp_path / "clip.zarr")) == (Failure.FINAL, before)
    assert "keyframes.interval 8 (now 4)" in outcome.error
    replacing = OpenRuns(replace(other, overwrite=True))()
    assert [replacing(clip).state for _ in range(2)] == [State.DONE, State.SKIPPED]


@pytest.mark.parametrize("change", [{"source": "other.mp4"}, {"start": "2"}])
def test_one_batch_does_not_replace_what_it_has_written(job, clip, folder, tmp_path, change):
    write_video(folder / "other.mp4", moving_shapes(6, (90, 160), shapes=2, seed=2)[0])
    if "source" in change:
        change = {"source": str(folder / "other.mp4")}
    clip = replace(clip, prompts=None)
    other = replace(clip, **change)
    for _ in range(2):  # the second batch finds the store complete
        work = OpenRuns(replace(job, overwrite=True, began=check_out(job.out)))()
        assert work(clip).error == ""
        before = files(tmp_path / "clip.zarr")
        outcome = work(other)
        assert (outcome.failure, files(tmp_path / "clip.zarr")) == (Failure.FINAL, before)
        assert "was written in this batch" in outcome.error
    later = OpenRuns(replace(job, overwrite=True, began=check_out(job.out)))()
    assert later(other).state is State.DONE


def test_a_store_that_another_process_writes_is_left_to_it(job, clip, tmp_path):
    with MaskStoreWriter(tmp_path / "clip.zarr", info=INFO, attributes={}):
        outcome = OpenRuns(replace(job, overwrite=True))()(clip)
    assert outcome.failure is Failure.BUSY
    assert "being written by process" in outcome.error


def test_exports_are_made_once(job, clip, tmp_path):
    work = OpenRuns(replace(job, exports=("coco", "davis")))()
    work(clip)
    (tmp_path / "clip.coco.json").write_text("mine")
    frames = sorted((tmp_path / "clip.davis").iterdir())
    assert len(frames) == 6
    (tmp_path / "clip.davis" / frames[0].name).unlink()
    assert work(clip).state is State.SKIPPED
    assert (tmp_path / "clip.coco.json").read_text() == "mine"
    more = OpenRuns(replace(job, exports=("mot",)))()
    assert more(clip).state is State.SKIPPED
    assert (tmp_path / "clip.mot.txt").read_text()


def images(place):
    return len(json.loads(place.read_text())["images"])


def test_a_row_sets_keys_of_the_configuration(job, clip, tmp_path):
    work = OpenRuns(job)()
    task = replace(clip, options=("keyframes.interval=4",))
    assert work(task).state is State.DONE
    stored = MaskStore(tmp_path / "clip.zarr").attributes["config"]
    assert stored == job.config.without_seeding().model_dump(mode="json") | {
        "keyframes": stored["keyframes"]
    }
    assert stored["keyframes"]["interval"] == 4
    assert work(task).state is State.SKIPPED
    assert "keyframes.interval 4 (now 8)" in work(clip).error
    assert work(replace(clip, name="other")).state is State.DONE


def test_an_export_older_than_its_store_is_made_again(job, clip, tmp_path):
    exporting = replace(job, exports=("coco", "png"))
    assert OpenRuns(exporting)()(replace(clip, end="3")).frames == 3
    assert OpenRuns(job)()(clip).frames == 6
    assert images(tmp_path / "clip.coco.json") == 3
    assert OpenRuns(exporting)()(clip).state is State.SKIPPED
    assert images(tmp_path / "clip.coco.json") == len(list((tmp_path / "clip.png").iterdir())) == 6

    replacing = replace(job, overwrite=True)
    assert OpenRuns(replacing)()(replace(clip, end="2")).frames == 2
    assert OpenRuns(exporting)()(replace(clip, end="2")).state is State.SKIPPED
    assert images(tmp_path / "clip.coco.json") == len(list((tmp_path / "clip.png").iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clip.coco.json", "clip.png", "clip.zarr",
    ]  # fmt: skip


def test_an_export_follows_the_names_of_objects(job, clip, tmp_path):
    work = OpenRuns(replace(job, exports=("coco",)))()
    assert work(clip).state is State.DONE
    name = {"frame": 0, "type": "rename", "object": 1, "name": "cup"}
    named = tmp_path / "named.json"
    named.write_text(json.dumps({"version": 1, "events": [CLICK, name]}))
    assert work(replace(clip, prompts=str(named))).state is State.SKIPPED
    assert "cup" in (tmp_path / "clip.coco.json").read_text()


def test_what_a_killed_export_left_is_removed(job, clip, tmp_path):
    """A half-written folder is not an export, and the files of a dead process are nobody's."""
    OpenRuns(job)()(clip)
    (tmp_path / "clip.png").mkdir()
    (tmp_path / "clip.png" / MARKER).write_text("{}")
    (tmp_path / "clip.png/old.png").write_text("old")
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = tmp_path / f".clip.png.part/{socket.gethostname()}-{gone.pid}-0/clip.png"
    left.mkdir(parents=True)
    assert OpenRuns(replace(job, exports=("png",)))()(clip).state is State.SKIPPED
    assert len(list((tmp_path / "clip.png").glob("*.png"))) == 6
    assert not (tmp_path / "clip.png/old.png").exists()
    assert not (tmp_path / ".clip.png.part").exists()


@pytest.mark.parametrize("name", ["coco", "png"])
def test_two_workers_export_the_same_video_at_once(job, clip, tmp_path, name):
    OpenRuns(job)()(clip)
    works = [OpenRuns(replace(job, exports=(name,)))() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda work: work(clip), works))
    assert [outcome.error for outcome in outcomes] == [""] * 4
    found = {"coco": lambda: images(tmp_path / "clip.coco.json"),
             "png": lambda: len(list((tmp_path / "clip.png").iterdir()))}[name]()  # fmt: skip
    assert found == 6
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "missing.mp4"}, "no file"),
        ({"prompts": "missing.json"}, "cannot read the prompts"),
        ({"start": "nonsense"}, "nonsense"),
        ({"source": "nonsense://films/a.mp4"}, "nonsense"),
        ({"options": ("seeding.nonsense=1",)}, "seeding.nonsense: no such key"),
        ({"options": ("seeding.max_objects=-1",)}, "seeding.max_objects: "),
    ],
)
def test_a_bad_row_is_a_final_sentence(job, clip, change, words):
    outcome = OpenRuns(job)()(replace(clip, **change))
    assert (outcome.state, outcome.failure) == (State.FAILED, Failure.FINAL)
    assert words in outcome.error
