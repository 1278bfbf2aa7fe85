"""A session: everything follows from its log, and its file replays to the same store."""

from __future__ import annotations

import json
import resource
import shutil
from functools import partial

import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig, ThreadsConfig
from maskstream.pipeline.errors import PromptError, StoreError
from maskstream.pipeline.models.networks import open_networks
from maskstream.pipeline.prompts import load_prompts
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.ui.editing.clicker import Segmenters
from maskstream.ui.editing.editor import Editor
from maskstream.ui.editing.entries import (
    ChangedEntry,
    ClearedEntry,
    Click,
    DeletedEntry,
    ModelEntry,
    PromptedEntry,
    RangeEntry,
    TrackedEntry,
)
from maskstream.ui.editing.session import Session, fold
from maskstream.ui.editing.slots import JobSlots
from maskstream.ui.editing.track_plan import plan_job, segments_of, stale_segments
from maskstream.ui.editing.tracking_task import TrackingTask
from tests.support.media import moving_shapes, write_images, write_video

COUNT = 30
SEGMENTERS = Segmenters(PipelineConfig(threads=ThreadsConfig(inference=1)))
SHAPE = (12, 16)


def mask(value: int) -> np.ndarray:
    filled = np.zeros(SHAPE, np.bool_)
    filled[value % 12, : 1 + value % 15] = True
    return filled


def prompt(
    session: Session, frame: int, object_id: int = 1, value: int | None = None
) -> PromptedEntry:
    name = session.masks.put(mask(frame + 1 if value is None else value))
    return PromptedEntry(object=object_id, frame=frame, candidates=(name,))


@pytest.fixture
def session(tmp_path):
    return Session(tmp_path / "s", tmp_path / "clip.mp4", "clip")


def test_undo_and_redo_move_through_everything(session):
    steps = [
        prompt(session, 0),
        ChangedEntry(object=1, name="cup", color="#102030"),
        prompt(session, 7),
        ChangedEntry(object=1, visible=False),
        RangeEntry(first=2, last=9),
        ClearedEntry(object=1, frame=7),
        ChangedEntry(object=1, locked=True),
    ]
    states = [session.state]
    for step in steps:
        session.add(step)
        states.append(session.state)
    for expected in states[-2::-1]:
        assert session.undo()
        assert session.state == expected
    assert not session.undo()
    for expected in states[1:]:
        assert session.redo()
        assert session.state == expected
    assert not session.redo()
    assert session.state == fold(session.log)


def test_something_new_after_an_undo_drops_what_was_undone(session):
    session.add(prompt(session, 0))
    session.add(ChangedEntry(object=1, name="cup"))
    session.undo()
    session.add(ChangedEntry(object=1, name="mug"))
    assert not session.redo()
    assert session.state.objects[1].name == "mug"


def test_numbers_of_deleted_objects_are_not_used_again(session):
    session.add(prompt(session, 0, object_id=session.next_object()))
    session.add(DeletedEntry(object=1))
    assert session.next_object() == 2
    with pytest.raises(PromptError, match="no object 1"):
        session.add(ChangedEntry(object=1, name="cup"))


def test_locked_objects_refuse_prompts(session):
    session.add(prompt(session, 0))
    session.add(ChangedEntry(object=1, name="cup", locked=True))
    for entry in (prompt(session, 5), ClearedEntry(object=1, frame=0), DeletedEntry(object=1)):
        with pytest.raises(PromptError, match="“cup” is locked"):
            session.add(entry)


def test_a_session_reopens_where_it_was_left(session):
    session.add(prompt(session, 0))
    session.add(prompt(session, 4, object_id=2))
    session.add(ChangedEntry(object=2, name="dog"))
    session.undo()
    again = Session.reopen(session.folder)
    assert (again.state, again.position) == (session.state, session.position)
    assert again.redo()
    assert again.state.objects[2].name == "dog"
    assert np.array_equal(again.masks.get(again.state.objects[1].anchors[0].mask), mask(1))


@pytest.mark.parametrize("text", ["", "{}", '{"page": {"log": 3}}', '{"page": {"source": "x"'])
def test_a_damaged_file_is_a_sentence(tmp_path, text):
    (tmp_path / "session.json").write_text(text)
    with pytest.raises(StoreError, match="damaged"):
        Session.reopen(tmp_path)


def test_a_file_cut_off_in_writing_leaves_the_one_before(session):
    session.add(prompt(session, 0))
    (session.folder / ".session.json.part").write_text('{"version": 1, "ev')
    assert Session.reopen(session.folder).state == session.state


SPANS = [
    pytest.param([0], [(0, 29)], id="first"),
    pytest.param([10], [(0, 9), (10, 29)], id="middle"),
    pytest.param([29], [(0, 28), (29, 29)], id="last"),
    pytest.param([4, 20], [(0, 3), (4, 19), (20, 29)], id="two"),
    pytest.param([4, 5], [(0, 3), (4, 4), (5, 29)], id="neighbors"),
]


@pytest.mark.parametrize(("anchors", "spans"), SPANS)
def test_segments_lie_between_anchors(session, anchors, spans):
    for frame in anchors:
        session.add(prompt(session, frame))
    found = segments_of(session.state.objects[1], 0, 29)
    assert [(s.first, s.last) for s in found] == spans
    assert [pending.whole for pending in stale_segments(session.state, range(30))] == found


def test_a_job_is_in_the_file_as_in_a_prompts_file(session):
    session.add(prompt(session, 4))
    session.add(prompt(session, 8, object_id=2))
    masks = {i: f"masks/{o.anchors[4 * i].mask}.png" for i, o in session.state.objects.items()}
    job = plan_job(session.state, stale_segments(session.state, range(10)))
    one, two = ({"frame": 4 * i, "object": i, "type": "mask", "mask": masks[i]} for i in (1, 2))
    kept = {"gone": False, "onto": False}
    values = {
        "objects": {"1": "Object 1", "2": "Object 2"},
        "passes": [
            {"direction": "forward", "first": 4, "last": 9, "events": [one, two]},
            {"direction": "backward", "first": 0, "last": 8, "events": [one, two]},
        ],
        "stretches": [
            {"object": 1, "first": 0, "last": 3, "forward": None, "backward": 1, **kept},
            {"object": 1, "first": 4, "last": 9, "forward": 0, "backward": None, **kept},
            {"object": 2, "first": 0, "last": 7, "forward": None, "backward": 1, **kept},
            {"object": 2, "first": 8, "last": 9, "forward": 0, "backward": None, **kept},
        ],
        "quality": None,
        "model": None,
        "finished": True,
    }
    assert json.loads(job.model_dump_json(by_alias=True)) == values
    session.add(TrackedEntry(store="masks-1.zarr", job=job, done=()))
    assert json.loads((session.folder / "session.json").read_text())["tracking"] == [values]
    again = Session.reopen(session.folder)
    assert again.state.jobs == (job,)
    read = load_prompts(session.folder / "session.json").tracking
    assert [event.mask.any() for task in read[0].passes for event in task.events] == [True] * 4


def center(masks, frame: int, object_id: int) -> Click:
    rows, columns = np.nonzero(masks[frame] == object_id)
    return Click(x=float(columns.mean()), y=float(rows.mean()), label=1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    # Apart on frame 10: a click means one.
    frames, masks = moving_shapes(COUNT, (120, 176), shapes=2, seed=1)
    path = tmp_path_factory.mktemp("clip") / "shapes.mp4"
    return write_video(path, frames, options={"g": "12"}), masks


def edit(folder, path) -> Editor:
    return Editor(Session(folder, path, "shapes"), SEGMENTERS, JobSlots())


def track(editor: Editor, direction="both") -> MaskStore:
    editor.track(direction)
    editor.task.wait(60)
    assert editor.task.status == "done", editor.task.message
    return MaskStore(editor.session.store)


def labels_of(store: MaskStore) -> dict[int, np.ndarray]:
    return {result.index: result.labels for result in store}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def test_click_track_correct_undo_and_replay(tmp_path, clip, cli):
    path, truth = clip
    editor = edit(tmp_path / "s", path)
    first = editor.click(10, center(truth, 10, 1), None)
    second = editor.click(10, center(truth, 10, 2), None)
    shown = editor.result(10)
    assert iou(shown.mask(first), truth[10] == 1) > 0.7
    store = track(editor)
    before = labels_of(store)
    assert sorted(before) == list(range(COUNT))
    assert (
        np.array_equal(before[10] == first, shown.labels == first)
        or iou(before[10] == first, shown.labels == first) > 0.9
    )
    assert editor.to_json()["stale"] == []
    with pytest.raises(PromptError, match="Everything is tracked"):
        editor.track()

    editor.box(20, [1, 1, 30, 30], second)  # a correction, of one object only
    assert [(s["object"], s["first"], s["last"]) for s in editor.to_json()["stale"]] == [
        (second, 10, 19),
        (second, 20, 29),
    ]
    corrected = track(editor)
    for row, result in enumerate(corrected):
        old = store.frame(row)
        assert np.array_equal(result.mask(first), old.mask(first)), result.index
        if result.index < 10:
            assert np.array_equal(result.labels, old.labels)
    assert not np.array_equal(corrected.mask(second, 20), store.mask(second, 20))

    last = editor.session.store
    replayed, kept = replay(cli, editor, tmp_path / "cli.zarr"), labels_of(MaskStore(last))
    assert replayed.keys() == kept.keys()
    assert all(np.array_equal(replayed[t], kept[t]) for t in kept)

    editor.undo()  # the tracking, then the box
    editor.undo()
    assert editor.session.store == store.path
    assert np.array_equal(editor.result(20).labels, before[20])
    editor.close()


def test_images_are_tracked_under_their_own_numbers(tmp_path, cli):
    frames, truth = moving_shapes(12, (120, 176), shapes=1, seed=3)
    folder = write_images(tmp_path / "shot", frames, start=1001)
    editor = edit(tmp_path / "s", folder)
    shown = editor.to_json()
    assert [shown[name] for name in ("start", "end", "first", "last")] == [1001, 1012, 1001, 1012]
    editor.click(1005, center(truth, 4, 1), None)
    tracked = labels_of(track(editor))
    assert sorted(tracked) == list(range(1001, 1013))
    assert all(iou(tracked[t] == 1, truth[t - 1001] == 1) > 0.6 for t in tracked)
    assert len(editor.shown.timeline(100).strips[1]) == 12
    replayed = replay(cli, editor, tmp_path / "cli.zarr")
    assert all(np.array_equal(replayed[t], tracked[t]) for t in tracked)
    editor.close()


def stop_after(monkeypatch, count: int) -> None:
    """Press Stop when a job has done so many frames."""
    on_frame = TrackingTask._on_frame

    def counted(task, number, result):
        if task.done_frames + 1 == count:
            task.stop()
        on_frame(task, number, result)

    monkeypatch.setattr(TrackingTask, "_on_frame", counted)


def replay(cli, editor: Editor, place) -> dict[int, np.ndarray]:
    file = editor.session.folder / "session.json"
    code, _, err = cli("run", editor.session.source, "-o", place, "--prompts", file, "--quiet",
                       "--set", "threads.inference=1")  # fmt: skip
    assert code == 0, err
    return labels_of(MaskStore(place))


STOPS = [
    pytest.param([0], 12, id="forward"),
    pytest.param([29], 12, id="backward"),
    pytest.param([4, 20], 12, id="forward-of-two"),
    pytest.param([4, 20], 27, id="between-the-passes"),
    pytest.param([4, 20], 36, id="backward-of-two"),
]


def stale_spans(editor: Editor) -> list[tuple[int, int]]:
    return [(s["first"], s["last"]) for s in editor.to_json()["stale"]]


@pytest.mark.parametrize(("anchors", "count"), STOPS)
def test_a_stopped_job_goes_on_where_it_stopped(tmp_path, clip, cli, monkeypatch, anchors, count):
    path, truth = clip
    editor = edit(tmp_path / "s", path)
    for frame in anchors:
        known = 1 if frame != anchors[0] else None
        editor.click(frame, center(truth, frame, 1), known)
    with monkeypatch.context() as patched:
        stop_after(patched, count)
        editor.track()
        editor.task.wait(60)
    assert editor.task.status == "stopped", editor.task.message
    total = editor.task.plan.frames
    stopped = labels_of(MaskStore(editor.session.store))
    left = stale_spans(editor)
    finished = labels_of(track(editor))
    interval = editor.models.config.keyframes.interval  # after a keyframe masks may still change
    assert editor.task.plan.frames <= total - count + interval + 1
    assert sorted(finished) == list(range(COUNT))
    assert stale_spans(editor) == []
    kept = set(stopped).difference(*(range(a, b + 1) for a, b in left))
    assert kept
    assert all(np.array_equal(finished[frame], stopped[frame]) for frame in kept)
    assert min(iou(finished[t] == 1, truth[t] == 1) for t in finished) > 0.5
    replayed = replay(cli, editor, tmp_path / "cli.zarr")
    assert all(np.array_equal(replayed[t], finished[t]) for t in range(COUNT))
    assert Session.reopen(editor.session.folder).state == editor.session.state
    editor.undo()  # the second job
    assert stale_spans(editor) == left
    editor.close()


def test_an_object_that_is_gone_is_nowhere_until_its_next_prompt(tmp_path, clip, cli):
    path, truth = clip
    editor = edit(tmp_path / "s", path)
    for number in (1, 2):
        editor.click(0, center(truth, 0, number), None)
    before = labels_of(track(editor))
    editor.mark_absent(12, 1)
    assert not (editor.result(12).labels == 1).any()
    stale = [(s["object"], s["first"], s["last"]) for s in editor.to_json()["stale"]]
    assert stale == [(1, 12, 29)]
    after = labels_of(track(editor))
    assert [t for t in after if (after[t] == 1).any()] == list(range(12))
    assert all(np.array_equal(after[t], before[t]) for t in range(12))
    assert all((after[t] == 2).sum() >= (before[t] == 2).sum() for t in after)
    assert editor.to_json()["stale"] == []
    replayed = replay(cli, editor, tmp_path / "cli.zarr")
    assert all(np.array_equal(replayed[t], after[t]) for t in after)

    editor.click(20, center(truth, 20, 1), 1)  # it is back, from some frame on
    last = labels_of(track(editor))
    assert not (last[12] == 1).any()
    assert all((last[t] == 1).any() for t in (11, 20, 29))
    editor.undo()  # the tracking, the click, the tracking, the mark
    editor.undo()
    editor.undo()
    editor.undo()
    assert (editor.result(12).labels == 1).any()
    editor.close()


def test_all_frames_of_a_running_job_can_be_looked_at(tmp_path, clip, monkeypatch):
    path, truth = clip
    monkeypatch.setattr("maskstream.ui.editing.tracking_task.LIVE_KEPT", 3)
    at_once = partial(MaskStoreWriter, frames_per_commit=1)
    monkeypatch.setattr("maskstream.pipeline.runs.retrack.MaskStoreWriter", at_once)
    seen, looked = {}, []
    on_frame = TrackingTask._on_frame

    def looked_at(task, number, result):
        seen[number, result.index] = result.labels.copy()
        on_frame(task, number, result)
        if task.done_frames == 28:
            shown = [found for t in range(COUNT) if (found := task.live(t)) is not None]
            assert [found.index for found in shown] == list(range(3, COUNT))
            for found in shown:
                last = max(n for n, t in seen if t == found.index)
                assert np.array_equal(found.labels, seen[last, found.index])
            looked.append(number)

    monkeypatch.setattr(TrackingTask, "_on_frame", looked_at)
    editor = edit(tmp_path / "s", path)
    editor.click(10, center(truth, 10, 1), None)
    track(editor)
    assert looked == [1]  # in the backward pass
    editor.close()


def test_a_job_loads_the_network_once(tmp_path, clip, monkeypatch):
    path, truth = clip
    editor = edit(tmp_path / "s", path)
    editor.click(10, center(truth, 10, 1), None)
    loaded = []

    def counted(*arguments):
        loaded.append(arguments)
        return open_networks(*arguments)

    monkeypatch.setattr("maskstream.pipeline.tracking.processor.open_networks", counted)
    track(editor)
    assert len(loaded) == 1
    editor.close()


def test_what_a_killed_job_did_is_there_after_reopening(tmp_path, clip):
    path, truth = clip
    editor = edit(tmp_path / "s", path)
    editor.click(0, center(truth, 0, 1), None)
    editor.track()
    task = editor.task
    while task.done_frames < 20:
        task.pause()
        task.resume()
    task.pause()  # and so it hangs while its files are taken as a crash would leave them
    shutil.copytree(editor.session.folder, tmp_path / "crashed")
    again = Editor(Session.reopen(tmp_path / "crashed"), SEGMENTERS, JobSlots())
    if again.session.store is not None:  # what was committed: every 2 s or 64 frames
        assert again.result(0).labels.any()
    assert not (tmp_path / "crashed" / "tracking.json").exists()
    again.close()
    editor.close()


def test_a_full_disk_keeps_what_was_tracked(tmp_path, monkeypatch):
    frames, masks = moving_shapes(100, (120, 176), shapes=2, seed=1)
    path = write_video(tmp_path / "long.mp4", frames, options={"g": "12"})
    editor = edit(tmp_path / "s", path)
    editor.click(0, center(masks, 0, 1), None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    on_frame = TrackingTask._on_frame

    def fills_the_disk(task, number, result):
        if task.done_frames == 80:  # the system refuses as a full disk does
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        on_frame(task, number, result)

    with monkeypatch.context() as patched:
        patched.setattr(TrackingTask, "_on_frame", fills_the_disk)
        editor.track()
        editor.task.wait(60)
    assert editor.task.status == "failed"
    assert "What was tracked is kept" in editor.task.message
    with pytest.raises(StoreError):
        editor.track()  # still full
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store = track(editor)
    assert store.indices.tolist() == list(range(100))
    assert editor.task.plan.frames < 50
    assert store.mask(1, 40).any()
    editor.close()


def test_a_session_chooses_among_the_models_offered(tmp_path, clip, cli):
    path, truth = clip
    session = Session(tmp_path / "s", path, "shapes")
    editor = Editor(session, SEGMENTERS, JobSlots(), {"lite": Segmenters(SEGMENTERS.config)})
    with pytest.raises(PromptError, match="does not offer the model other"):
        editor.change(ModelEntry(model="other"))
    editor.change(ModelEntry(model="lite"))
    editor.click(0, center(truth, 0, 1), None)
    store = track(editor)
    assert session.state.jobs[0].model == "lite"
    replayed = replay(cli, editor, tmp_path / "cli.zarr")
    assert all(np.array_equal(replayed[t], labels_of(store)[t]) for t in replayed)
    editor.close()
    elsewhere = Editor(Session.reopen(session.folder), SEGMENTERS, JobSlots())
    with pytest.raises(PromptError, match="does not offer the model lite"):
        elsewhere.click(3, center(truth, 3, 1), 1)
    assert elsewhere.to_json()["model"] == "lite"  # it is shown, and another can be chosen
    elsewhere.change(ModelEntry(model=""))
    elsewhere.click(3, center(truth, 3, 1), 1)
    elsewhere.close()


def test_the_file_is_a_prompts_file(session):
    session.add(prompt(session, 0))
    values = json.loads((session.folder / "session.json").read_text())
    assert values["version"] == 1
    assert [event["type"] for event in values["events"]] == ["mask"]


def test_a_color_keeps_its_key_in_the_log(session):
    session.add(prompt(session, 0))
    session.add(ChangedEntry(object=1, color="#102030"))
    (_, entry) = json.loads((session.folder / "session.json").read_text())["page"]["log"]
    assert entry == {"type": "changed", "object": 1, "colour": "#102030"}
