"""Clicks on masks that are there already, their preview, and cleaning up, through the server."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig, ThreadsConfig
from maskstream.pipeline.errors import PromptError
from maskstream.trackers.iou import mask_iou
from maskstream.ui.editing.clicker import Segmenters
from maskstream.ui.editing.editor import Editor
from maskstream.ui.editing.entries import Click
from maskstream.ui.editing.quota import Limits
from maskstream.ui.editing.session import Session
from maskstream.ui.editing.slots import JobSlots
from maskstream.ui.editing.workspace import Workspace
from tests.support.media import moving_shapes, write_video

CONFIG = PipelineConfig(threads=ThreadsConfig(inference=1))
SEGMENTERS = Segmenters(CONFIG)
FRAME, SIZE_HW = 10, (120, 176)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames, masks = moving_shapes(FRAME + 1, SIZE_HW, shapes=2, seed=1)
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames), masks[FRAME]


@pytest.fixture
def editor(clip, tmp_path):
    opened = Editor(Session(tmp_path, clip[0], "clip"), SEGMENTERS, JobSlots())
    yield opened
    opened.close()


def at(mask, label: int = 1) -> Click:
    rows, columns = np.nonzero(mask)
    return Click(x=int(columns.mean()), y=int(rows.mean()), label=label)


def brushed(editor: Editor, mask) -> int:
    return editor.brush(FRAME, mask, None, erase=False)


def test_a_click_on_a_brushed_mask_keeps_what_is_elsewhere(editor, clip):
    first, second = clip[1] == 1, clip[1] == 2
    number = brushed(editor, first | second)
    editor.click(FRAME, at(second, 0), number)
    corrected = editor.shown.mask(FRAME, number)
    assert (corrected & first).sum() == first.sum()
    assert corrected[second].mean() < 0.5
    editor.undo()
    assert (editor.shown.mask(FRAME, number) == (first | second)).all()


def test_each_click_of_a_frame_is_kept(editor, clip):
    first, second = clip[1] == 1, clip[1] == 2
    clicks = [at(first), at(second), at(second, 0), at(second)]
    number = editor.click(FRAME, clicks[0], None)
    for click in clicks[1:]:
        editor.click(FRAME, click, number)
        mask = editor.shown.mask(FRAME, number)
        assert mask[int(click.y), int(click.x)] == (click.label == 1)
    anchor = editor.session.state.objects[number].anchors[FRAME]
    assert anchor.clicks == tuple(clicks)
    assert len(anchor.candidates) == 1


def test_a_first_click_still_offers_several_masks(editor, clip):
    number = editor.click(FRAME, at(clip[1] == 1), None)
    anchor = editor.session.state.objects[number].anchors[FRAME]
    assert len(anchor.candidates) > 1
    assert mask_iou(editor.shown.mask(FRAME, number), clip[1] == 1) > 0.5


def test_a_correction_that_leaves_nothing_is_refused(editor):
    dot = np.zeros(SIZE_HW, np.bool_)
    dot[60, 80] = True
    number = brushed(editor, dot)
    with pytest.raises(PromptError, match="Nothing would be left"):
        editor.click(FRAME, at(dot, 0), number)


@pytest.mark.parametrize("place", [(-1, 5), (176, 5), (5, 120), (5, -0.5)])
def test_a_click_outside_the_frame_is_a_sentence(editor, clip, place):
    number = brushed(editor, clip[1] == 1)
    with pytest.raises(PromptError, match="outside"):
        editor.click(FRAME, Click(x=place[0], y=place[1], label=1), number)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("start", ["new", "clicked", "brushed"])
def test_the_preview_is_what_the_click_gives(editor, clip, start, label):
    first, second = clip[1] == 1, clip[1] == 2
    editor.prepare(FRAME)
    number = None
    if start == "clicked":
        number = editor.click(FRAME, at(first), None)
    elif start == "brushed":
        number = brushed(editor, first | second if label == 0 else first)
    click = at(second, label) if start == "brushed" else at(first, label)
    if start == "new" and label == 0:
        with pytest.raises(PromptError):
            editor.preview(FRAME, click, number)
        return
    entries = len(editor.session.log)
    seen = editor.preview(FRAME, click, number)
    assert len(editor.session.log) == entries
    number = editor.click(FRAME, click, number)
    assert (seen == editor.shown.mask(FRAME, number)).all()


def test_a_preview_does_not_wait(editor, clip):
    click = at(clip[1] == 1)
    assert editor.preview(FRAME, click, None) is None  # not encoded yet
    editor.prepare(FRAME)
    lock = SEGMENTERS.of_size(SIZE_HW)[1]
    with lock:
        assert editor.preview(FRAME, click, None) is None
    assert editor.preview(FRAME, click, None) is not None


def test_cleaning_up_is_an_anchor_that_can_be_undone(editor, clip):
    mask = clip[1] == 1
    dirty = mask.copy()
    dirty[2:4, 2:4] = True
    number = brushed(editor, dirty)
    editor.cleanup(FRAME, number, specks=4)
    assert (editor.shown.mask(FRAME, number) == mask).all()
    assert editor.session.state.objects[number].anchors[FRAME].via == "cleanup"
    again = Session.reopen(editor.session.folder)
    assert again.state == editor.session.state
    with pytest.raises(PromptError, match="nothing to clean up"):
        editor.cleanup(FRAME, number, specks=4)
    with pytest.raises(PromptError, match="no mask on this frame"):
        editor.cleanup(0, number, specks=4)
    with pytest.raises(PromptError, match="no object 9"):
        editor.cleanup(FRAME, 9, specks=4)
    editor.undo()
    assert (editor.shown.mask(FRAME, number) == dirty).all()


@pytest.fixture(scope="module")
def client(clip, tmp_path_factory):
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("httpx") is None:
        pytest.skip("the extra ui is not installed (make setup)")
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from maskstream.ui.server.exports import Exports
    from maskstream.ui.server.failures import add_error_handlers
    from maskstream.ui.server.routes import make_router

    place = Workspace(tmp_path_factory.mktemp("sessions"), CONFIG, Limits())
    app = FastAPI()
    add_error_handlers(app, place.folder)
    app.include_router(make_router(place, Exports(place)))
    with TestClient(app) as opened:
        yield opened, f"/api/s/{place.begin(clip[0], 'clip')}"


def test_the_server_answers_a_preview_as_a_label_map(client, clip):
    http, session = client
    click = at(clip[1] == 1)
    asked = {"x": click.x, "y": click.y}
    assert http.get(f"{session}/preview/{FRAME}", params=asked).status_code == 204
    http.post(f"{session}/prepare/{FRAME}")
    answer = http.get(f"{session}/preview/{FRAME}", params=asked | {"side": 88})
    assert json.loads(answer.headers["x-about"])["size"] == [88, 60]
    labels = np.frombuffer(answer.content, np.uint8).reshape(60, 88)
    assert set(np.unique(labels)) == {0, 1}
    assert labels[int(click.y) // 2, int(click.x) // 2] == 1
    assert http.get(session).json()["objects"] == []


MALFORMED = [
    {},
    {"x": 5},
    {"x": "a", "y": 5},
    {"x": "nan", "y": 5},
    {"x": 5, "y": "inf"},
    {"x": 5, "y": 5, "label": 2},
    {"x": 5, "y": 5, "label": 0},
    {"x": 500, "y": 5},
    {"x": -1, "y": 5},
    {"x": 5, "y": 5, "object": "a"},
    {"x": 5, "y": 5, "side": 0},
]


@pytest.mark.parametrize("asked", MALFORMED, ids=str)
def test_a_malformed_preview_is_refused(client, asked):
    http, session = client
    http.post(f"{session}/prepare/{FRAME}")
    assert 400 <= http.get(f"{session}/preview/{FRAME}", params=asked).status_code < 500


@pytest.mark.parametrize(
    "wrong",
    [
        {"object": 9},
        {"frame": -1},
        {"holes": -1},
        {"holes": 1.5},
        {"specks": 10**9},
        {"smooth": 101},
        {"smooth": "a"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_malformed_cleanup_is_refused(client, wrong):
    http, session = client
    action = {"do": "cleanup", "frame": FRAME, "object": 1, "specks": 4} | wrong
    answer = http.post(f"{session}/do", json=action)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]
