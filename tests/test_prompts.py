"""The prompts file: what is accepted, and what a wrong one is told."""

import json

import cv2
import numpy as np
import pytest

from maskstream.pipeline.engine.backward import first_prompts
from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.prompts import PromptLog, Segment, load_prompts

GOOD = {
    "version": 1,
    "events": [
        {"frame": 0, "type": "point", "object": 1, "xy": [10, 20.5], "label": 1},
        {"frame": 0, "type": "box", "object": 2, "xyxy": [1, 2, 30, 40]},
        {"frame": 40, "type": "remove", "object": 1},
        {"frame": 90, "type": "rename", "object": 9, "name": " tea cup "},
    ],
}


def written(tmp_path, content):
    path = tmp_path / "prompts.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return path


def test_events_are_read_in_order(tmp_path):
    log = load_prompts(written(tmp_path, GOOD))
    assert [e.type for e in log.at(0)] == ["point", "box"]
    assert log.frames == {0, 40}
    assert log.last_object == 2


def test_a_name_decides_no_mask(tmp_path):
    """It would else remove the object, ask for a frame 90, and shift the numbers of found ones."""
    log = load_prompts(written(tmp_path, GOOD))
    assert log.events[-1].name == "tea cup"
    assert log.at(90) == ()
    assert log.prompts == log.events[:-1]
    named_first = changed(3, frame=0, object=2)
    named_first["events"][1] |= {"frame": 12}
    backward = first_prompts(load_prompts(written(tmp_path, named_first)))
    assert [(e.type, e.frame) for e in backward.events] == [("box", 12)]


def changed(event: int, **values):
    events = [dict(e) for e in GOOD["events"]]
    events[event] |= values
    return {"version": 1, "events": events}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "line 1: not JSON"),
        ('{"version": 1,\n "events": [,]}', "line 2: not JSON"),
        ({"version": 2, "events": []}, "version"),
        ({"version": 1, "events": [], "extra": 1}, "extra: unknown key"),
        (changed(0, color="red"), "color: unknown key"),
        (changed(0, label=2), "events.0.label"),
        (changed(0, frame=-1), "events.0.frame"),
        (changed(1, xyxy=[30, 2, 1, 40]), "x1 > x0"),
        (changed(2, type="paint"), "events.2"),
        (changed(1, object=0), "events.1.object"),
        (changed(0, xy=[float("nan"), 1]), "events.0.xy"),
        (changed(3, name="two\nlines"), "one line of printable"),
        (changed(3, name="x" * 101), "at most 100"),
        (changed(3, label=1), "label: unknown key"),
    ],
)
def test_wrong_file_is_told_what_is_wrong(tmp_path, content, says):
    with pytest.raises(PromptError, match=says.replace(".", r"\.")):
        load_prompts(written(tmp_path, content))


def test_error_names_the_line_of_the_event(tmp_path):
    lines = ",\n".join(json.dumps(e) for e in changed(2, object=-3)["events"])
    path = written(tmp_path, f'{{"version": 1,\n"events": [\n{lines}\n]}}')
    with pytest.raises(PromptError, match="line 5"):
        load_prompts(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00binary"])
def test_missing_or_binary_file_is_a_sentence(tmp_path, content):
    path = tmp_path / "prompts.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PromptError, match=r"prompts\.json"):
        load_prompts(path)


@pytest.mark.parametrize(
    ("event", "inside"),
    [
        (changed(0, xy=[639.5, 0]), True),
        (changed(0, xy=[640, 0]), False),
        (changed(1, xyxy=[-5, -5, 3, 3]), True),
        (changed(1, xyxy=[700, 0, 800, 20]), False),
    ],
)
def test_prompts_outside_the_image_are_refused(tmp_path, event, inside):
    log = load_prompts(written(tmp_path, event))
    if inside:
        log.check_inside((360, 640))
    else:
        with pytest.raises(PromptError, match="outside the image of 640x360"):
            log.check_inside((360, 640))


MASK = {"frame": 3, "type": "mask", "object": 4, "mask": "cup.png"}


def with_mask(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / "cup.png"), pixels)
    return written(tmp_path, {"version": 1, "events": [MASK]})


def test_a_mask_is_read_beside_the_prompts_file(tmp_path):
    pixels = np.zeros((6, 8), np.uint8)
    pixels[2:4, 3:5] = 200
    log = load_prompts(with_mask(tmp_path, pixels))
    (event,) = log.at(3)
    assert np.array_equal(event.mask, pixels > 0)
    log.check_inside((6, 8))
    with pytest.raises(PromptError, match="8x6, but the image is 640x360"):
        log.check_inside((360, 640))


def test_a_mask_may_be_an_array():
    mask = np.eye(4, dtype=np.bool_)
    log = PromptLog.model_validate({"version": 1, "events": [MASK | {"mask": mask}]})
    assert log.events[0].mask is mask


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        ("none.png", "line 1: events.0.*there is no image"),
        (12, "a mask is the path of an image"),
        ("cup.png", "the mask is empty"),
    ],
)
def test_a_wrong_mask_is_told_what_is_wrong(tmp_path, mask, says):
    cv2.imwrite(str(tmp_path / "cup.png"), np.zeros((4, 4), np.uint8))
    path = written(tmp_path, json.dumps({"version": 1, "events": [MASK | {"mask": mask}]}))
    with pytest.raises(PromptError, match=says):
        load_prompts(path)


def test_a_segment_keeps_its_keys_in_the_file():
    values = {"object": 1, "first": 0, "last": 4, "gone": True, "onto": True}
    segment = Segment.model_validate(values)
    assert segment.absent
    assert segment.continues
    assert values.items() <= segment.model_dump(mode="json", by_alias=True).items()
