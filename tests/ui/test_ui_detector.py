"""Find with a detector: its classes as filters, and objects that are named by their class."""

from pathlib import Path

import pytest

from tests.support.browser import Tab, iou, served, why_not
from tests.support.labeled_shapes import CLASSES, labeled_clip
from tests.support.media import write_video

SHAPES = Path(__file__).parents[1] / "data" / "shapes-seg.onnx"
skipped = pytest.mark.skipif(bool(why_not()), reason=why_not() or "")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of a disc, a square and a triangle, with its true label maps."""
    frames, labels = labeled_clip(8, seed=2)
    return write_video(tmp_path_factory.mktemp("clip") / "shapes.mp4", frames), labels


@pytest.fixture(scope="module")
def detecting(tmp_path_factory, clip):
    """The page, served with a detector."""
    folder = tmp_path_factory.mktemp("sessions")
    with served(folder, "--allow", clip[0].parent, "--detector", SHAPES) as found:
        yield found


@skipped
def test_find_filters_by_class_and_names_what_is_added(chromium, detecting, clip):
    path, truth = clip
    token = detecting.begin(path)
    with Tab(chromium, detecting.url) as tab:
        tab.open(f"?s={token}")
        tab.page.click("#find")
        tab.page.wait_for_selector("#found-classes .chip")
        chips = tab.page.locator("#found-classes .chip")
        listed = tab.page.locator("#found .found span:first-of-type")
        shown = {text.rsplit(" ", 1)[0] for text in chips.all_inner_texts()}
        assert shown == set(listed.all_inner_texts()) <= set(CLASSES)
        assert "square" in shown
        for label in shown - {"square"}:
            tab.page.click(f"[data-class={label}]")
        assert listed.all_inner_texts() == ["square"]
        tab.page.click("#found button")
        tab.settle()
        tab.page.keyboard.press("Escape")
        tab.track()
    (made,) = detecting.state(token)["objects"]
    assert made["name"] == f"square {made['id']}"
    store = detecting.store(token)
    number = 1 + CLASSES.index("square")
    assert min(iou(store.mask(made["id"], t), truth[t] == number) for t in range(8)) > 0.8
    assert [known.id for known in store.objects()] == [made["id"]]  # tracking detects nothing


def test_a_class_that_the_detector_lacks_is_an_error_before_the_page_is_served(cli, tmp_path):
    code, _, said = cli("ui", "--sessions", tmp_path, "--detector", SHAPES, "--classes", "horse")
    assert code == 1
    assert "has no class 'horse'; it has disc, square, triangle" in " ".join(said.split())
