"""What is shown is what is tracked is what is exported: overlaps, corrections, clicks."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from maskstream.pipeline.config import PipelineConfig, ThreadsConfig
from maskstream.ui.editing.actions import parse_action, perform
from maskstream.ui.editing.clicker import Segmenters
from maskstream.ui.editing.editor import Editor
from maskstream.ui.editing.entries import ChangedEntry, ObjectEdges, OrderEntry
from maskstream.ui.editing.export_task import ExportRequest, ExportTask
from maskstream.ui.editing.session import Session
from maskstream.ui.editing.slots import JobSlots
from tests.support.browser import Tab, center, why_not
from tests.support.media import moving_shapes, write_video

in_a_browser = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
SIZE = (120, 176)
BALL, MAN = (80, 60), (80, 30)
SMALL, LARGE = 12, 34


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames, _ = moving_shapes(12, SIZE, shapes=2, seed=1)
    return write_video(tmp_path_factory.mktemp("clip") / "shapes.mp4", frames)


@pytest.fixture
def editor(clip, tmp_path):
    segmenters = Segmenters(PipelineConfig(threads=ThreadsConfig(inference=1)))
    opened = Editor(Session(tmp_path / "s", clip, "shapes"), segmenters, JobSlots())
    yield opened
    opened.close()


def do(editor: Editor, **values) -> int | None:
    return perform(editor, parse_action(values))


def paint(editor: Editor, at: tuple[int, int], radius: int, **more) -> int:
    return do(editor, do="brush", frame=0, points=[at], radius=radius, **more)


def seen(editor: Editor) -> np.ndarray:
    return editor.result(0).labels


@pytest.fixture
def overlapping(editor):
    """A ball before a man, who is added later."""
    assert paint(editor, BALL, SMALL) == 1
    assert paint(editor, (80, 60), LARGE) == 2
    return editor


def test_a_smaller_object_stays_in_view(overlapping):
    assert seen(overlapping)[60, 80] == 1
    assert overlapping.result(0).mask(2)[60, 80]
    layers = overlapping.shown.layers(0, 88)
    assert layers.labels.shape == (60, 88)
    assert layers.labels[30, 40] == 1
    (under,) = layers.covered
    assert under.object_id == 2
    assert under.mask.sum() == (layers.labels == 1).sum()


def test_the_order_is_the_persons(overlapping):
    overlapping.change(OrderEntry(objects=(2, 1)))
    assert seen(overlapping)[60, 80] == 2
    assert overlapping.result(0).mask(1).sum() > 300
    assert paint(overlapping, (82, 60), 4) == 3
    assert seen(overlapping)[60, 82] == 3  # new ones are on top
    overlapping.change(OrderEntry(objects=()))
    assert seen(overlapping)[60, 76] == 1
    overlapping.undo()
    assert seen(overlapping)[60, 76] == 2


def test_a_locked_object_is_covered_by_none(overlapping):
    before = overlapping.result(0).mask(2)
    overlapping.change(ChangedEntry(object=2, locked=True))
    assert seen(overlapping)[60, 80] == 2
    paint(overlapping, (70, 60), 20, object=1)
    assert np.array_equal(overlapping.result(0).mask(2), before)
    assert np.array_equal(seen(overlapping) == 2, before)


def test_a_box_beside_an_object_adds_another_one(overlapping):
    assert do(overlapping, do="box", frame=0, xyxy=(130, 80, 170, 115), object=1) == 3
    assert overlapping.result(0).mask(1)[60, 80]
    assert do(overlapping, do="box", frame=0, xyxy=(66, 46, 94, 74), object=1) == 1


def test_two_prompts_before_the_answer_are_about_one_object(editor):
    assert paint(editor, BALL, SMALL, created="a") == 1
    assert paint(editor, (120, 90), SMALL, created="a") == 1
    assert paint(editor, (20, 20), SMALL, created="b") == 2
    editor.undo()
    assert paint(editor, (20, 20), SMALL, created="b") == 2


def export(editor: Editor, form: str) -> ExportTask:
    view = editor.view()
    ids = [known.id for known in view.objects]
    request = ExportRequest(form, "shapes", ids, view.first, view.last, editor.final_masks())
    task = ExportTask(editor.session.store, editor.session.folder, request, JobSlots())
    task.wait(60)
    assert task.status == "done", task.message
    return task


def exported_masks(task: ExportTask) -> np.ndarray:
    with zipfile.ZipFile(task.file) as packed:
        import cv2

        names = sorted(n for n in packed.namelist() if n.endswith(".png"))
        return np.stack([cv2.imdecode(np.frombuffer(packed.read(n), np.uint8), -1) for n in names])


def test_an_export_holds_what_is_shown(overlapping):
    overlapping.track()
    overlapping.task.wait(60)
    first = export(overlapping, "png-8")
    assert exported_masks(first)[0][60, 80] == 1
    overlapping.change(OrderEntry(objects=(2, 1)))
    assert overlapping.view().masks != first.to_json()["masks"]
    paint(overlapping, (20, 20), SMALL, object=1)  # a correction that is not tracked
    paint(overlapping, (150, 20), SMALL)  # an object that was never tracked
    masks = exported_masks(export(overlapping, "png-8"))
    shown = [overlapping.result(index).labels for index in range(len(masks))]
    assert np.array_equal(masks, np.stack(shown))
    assert masks[0][20, 20] == 1
    assert masks[0][20, 150] == 3
    assert masks[0][60, 80] == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.change(ChangedEntry(object=1, name="Ball")),
        lambda e: e.change(ChangedEntry(object=1, locked=True)),
        lambda e: e.change(OrderEntry(objects=(2, 1))),
        lambda e: e.change(ChangedEntry(object=1, edges=ObjectEdges(feather=2))),
        lambda e: e.mark_absent(3, 1),
        lambda e: paint(e, (20, 20), SMALL, object=1),
    ],
)
def test_exports_depend_on_everything_that_changes_them(overlapping, change):
    overlapping.track()
    overlapping.task.wait(60)
    before = overlapping.view().masks
    overlapping.change(ChangedEntry(object=1, visible=False))
    assert overlapping.view().masks == before  # what is hidden can be exported
    change(overlapping)
    assert overlapping.view().masks != before
    overlapping.undo()
    assert overlapping.view().masks == before


def test_an_object_is_exported_with_its_own_edges(overlapping):
    overlapping.change(ChangedEntry(object=2, edges=ObjectEdges(grow=5)))
    overlapping.track()
    overlapping.task.wait(60)
    mattes = exported_masks(export(overlapping, "png-matte"))
    first, second = mattes[0], mattes[len(mattes) // 2]  # the objects' first frames
    assert second[60, 80 + LARGE + 3] == 255
    assert first[60, 80 + SMALL + 3] == 0
    again = Session.reopen(overlapping.session.folder)
    assert again.state.objects[2].edges.grow == 5


# In the browser


@pytest.fixture
def tab(server, chromium):
    with Tab(chromium, server.url) as opened:
        opened.open_example("shapes")
        yield opened


def brush(tab: Tab, at: tuple[int, int], radius: int, selected: int | None = None) -> None:
    tab.run("id => page.select(id)", selected)
    tab.run(
        "([points, radius, frame]) => page.prompt({do: 'brush', frame, points, radius})",
        [[list(at)], radius, tab.run("page.frame")],
    )
    tab.settle()


@in_a_browser
def test_hidden_objects_cover_nothing(tab):
    brush(tab, (80, 60), 10)
    brush(tab, (80, 60), 30)
    tab.run("() => page.entry({type: 'order', objects: [2, 1]})")
    tab.settle()
    at = "() => page.view.labelAt(page.view.seen, [80, 60])"
    assert tab.run(at) == 2
    tab.run("() => page.entry({type: 'changed', object: 2, visible: false})")
    tab.settle()
    assert tab.run(at) == 1
    first = tab.page.locator("#objects .object").first
    assert first.get_attribute("data-object") == "2"
    first.locator("[aria-label=Show]").click()
    tab.settle()
    tab.page.locator("[data-object='1']").drag_to(first, target_position={"x": 60, "y": 2})
    tab.settle()
    assert tab.run("page.state.order") == [1, 2]
    assert tab.run(at) == 1


@in_a_browser
def test_a_double_click_is_one_action_and_quick_clicks_are_one_object(tab, truth):
    x, y = tab.screen(*center(truth[0], 1))
    tab.page.mouse.dblclick(x, y)
    tab.settle()
    assert tab.run("page.state.objects.map(o => o.anchors[0].clicks.length)") == [1]
    tab.run("() => page.select(null)")
    other = center(truth[0], 2)
    for dx in (0, 9):  # the second comes before the first is answered
        tab.page.mouse.click(*tab.screen(other[0] + dx, other[1]))
    tab.settle()
    assert tab.run("page.state.objects.map(o => o.id)") == [1, 2]
    assert tab.run("page.state.objects[1].anchors[0].clicks.length") == 2


@in_a_browser
def test_a_click_is_about_the_frame_that_was_shown(tab, truth):
    tab.seek(10)
    x, y = center(truth[10], 1)
    tab.run(  # the view moves on between pressing and the answer
        """([x, y]) => {
            const at = page.view.toScreen(x, y);
            const fire = (kind) => page.view.canvas.dispatchEvent(new PointerEvent(kind, {
                clientX: at[0], clientY: at[1], button: 0, pointerId: 1, bubbles: true }));
            page.view.canvas.setPointerCapture = () => {};
            fire("pointerdown"); page.seek(20); fire("pointerup");
        }""",
        [x, y],
    )
    tab.settle()
    assert tab.run("page.state.objects[0].anchors[0].frame") == 10
    assert tab.run("page.frame") == 10


@in_a_browser
def test_an_export_is_offered_only_as_long_as_it_is_current(tab, truth):
    tab.click(*center(truth[0], 1))
    tab.track()
    tab.page.click("#export")
    names = json.loads(tab.exported("coco").read_text())["categories"]
    assert [c["name"] for c in names] == ["Object 1"]
    assert tab.page.is_visible("#download")
    assert not tab.page.is_visible("#export-stale")
    tab.page.click("[data-format=prores]")
    assert not tab.page.is_visible("#download")
    tab.page.click("[data-format=coco]")
    assert tab.page.is_visible("#download")
    tab.run("() => page.entry({type: 'changed', object: 1, name: 'Disc'})")
    tab.settle()
    assert not tab.page.is_visible("#download")
    assert "older masks" in tab.page.inner_text("#export-status")
    brush(tab, (20, 20), 8, selected=1)
    assert "not tracked since the last correction" in tab.page.inner_text("#export-stale")
    names = json.loads(tab.exported("coco").read_text())["categories"]
    assert [c["name"] for c in names] == ["Disc"]
    tab.page.click("#export-track")
    tab.page.wait_for_function("page.running", timeout=10_000)
    tab.wait_tracked()
    tab.page.click("#export")
    assert not tab.page.is_visible("#export-stale")
