"""Commands to a live run: the frame they act on, what is refused, and when numbers run out."""

import json
import threading
import time
from functools import partial

import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.live.commands import (
    Command,
    CommandIntake,
    CommandQueue,
    Outcome,
    PendingCommand,
)
from maskstream.pipeline.live.session import LiveSession
from maskstream.pipeline.prompts import MAX_OBJECT_ID
from maskstream.pipeline.segmenter.model import OpenVinoSegmenter
from tests.support.clock import FakeClock
from tests.support.live_runs import PATIENT, RATE, SIZE, AtOnce, disc_of, images, run_until
from tests.support.media import moving_shapes

UNSEEDED = [*PATIENT, "seeding.enabled=false"]


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(60, SIZE, shapes=2, seed=1)


@pytest.fixture
def held(monkeypatch):
    """An event that keyframes wait for."""
    encode, release = OpenVinoSegmenter.encode, threading.Event()

    def slow(self, frame):
        assert release.wait(30)
        return encode(self, frame)

    monkeypatch.setattr(OpenVinoSegmenter, "encode", slow)
    return release


def followed(shapes, live, object_id):
    """IoU of an object's mask with the second shape."""
    mask, truth = live.result.mask(object_id), shapes[1][live.frame.index % 60] == 2
    return (mask & truth).sum() / (mask | truth).sum()


def test_a_click_acts_on_the_frame_it_names_and_remove_and_reset_at_once(shapes):
    come, taken = images(shapes, 400)
    session = LiveSession.open(come, load_config(overrides=UNSEEDED))
    answers, state, answered = [], {}, threading.Event()

    def answer(outcome):
        answers.append(outcome)
        if not outcome.refused:
            answered.set()

    def steps(live):
        if live.frame.index > 12:  # the keyframe shares a core with frames that come at once
            answered.wait(0.3)
        taken.release()
        index, shown = live.frame.index, {o.id for o in live.result.objects if o.area}
        if index == 12:
            xy = disc_of(shapes, 5)
            command = Command(type="point", xy=xy, pts_s=(5 + 30) / RATE)  # frame 5
            session.command(command, answer)
            session.command(Command(type="point", xy=xy, pts_s=0.5), answer)
            session.command(Command(type="point", xy=(999, 5)), answer)
        if shown and "followed" not in state:
            state["first"] = state.get("first", index)
            if index >= state["first"] + 5:
                mask = live.result.mask(min(shown))
                truth = shapes[1][index % 60] == 2
                state["followed"] = (mask & truth).sum() / (mask | truth).sum()
                session.command(Command(type="remove", object=min(shown)), answer)
        elif "followed" in state:
            return not shown
        return False

    run_until(session, steps)
    assert state["first"] > 12
    assert state["followed"] > 0.6
    refused = sorted(answer.refused for answer in answers if answer.refused)
    assert len(refused) == 2
    assert "is no longer kept" in refused[0]
    assert "outside the image" in refused[1]
    assert [a.object for a in answers if not a.refused] == [1, 1]


def test_a_click_waits_for_a_slow_keyframe_and_one_refused_prompt_spoils_no_other(shapes, held):
    come, taken = images(shapes, 400)
    session = LiveSession.open(come, load_config(overrides=[*UNSEEDED, "live.history_frames=8"]))
    answers, clicked = {}, threading.Event()
    named = {"pts_s": (5 + 30) / RATE}  # frame 5, which is gone long before the keyframe is done

    def answer(name, told):
        answers[name] = told
        if name == "click":
            clicked.set()

    commands = {
        "click": Command(type="point", xy=disc_of(shapes, 5), **named),
        "beside": Command(type="point", xy=(3, 3), label=0, **named),
        "taken back": Command(type="point", object=40, xy=(3, 3)),
        "remove": Command(type="remove", object=40),
        "too early": Command(type="point", xy=(3, 3), pts_s=500.0),
    }

    def steps(live):
        index = live.frame.index
        if index == 7:
            for name, command in commands.items():
                session.command(command, partial(answer, name))
        if index == 20:
            held.set()
        if index >= 20:  # keyframes share a core with frames, and the clip jumps at frame 60
            clicked.wait(0.3)
            time.sleep(0.05)
        taken.release()
        return any(o.area for o in live.result.objects)

    results, summary = run_until(session, steps)
    assert results[-1].frame.index > 20
    click = answers["click"]
    assert not click.refused
    assert followed(shapes, results[-1], click.object) > 0.6
    assert {name: told.refused[:30] for name, told in answers.items() if told.refused} == {
        "beside": "object 2 has only negative poi",
        "taken back": "a remove came after it",
        "too early": "there is no frame at 500.000 s",
    }
    assert answers["beside"].object is None
    assert not summary.full


def test_when_all_numbers_are_given_nothing_is_added_and_it_is_said(shapes, monkeypatch):
    monkeypatch.setattr("maskstream.pipeline.live.keyframe_engine.ThreadPoolExecutor", AtOnce)
    come, taken = images(shapes, 200)
    session = LiveSession.open(come, load_config(overrides=UNSEEDED))
    answers = []

    def steps(live):
        index, xy = live.frame.index, disc_of(shapes, live.frame.index % 60)
        if index == 0:
            session.command(Command(type="point", object=MAX_OBJECT_ID, xy=xy), answers.append)
        if len(answers) == 1:
            session.command(Command(type="point", xy=xy), answers.append)
        taken.release()
        return len(answers) > 1 and any(o.area for o in live.result.objects)

    results, summary = run_until(session, steps)
    assert "all 65535 numbers have been given" in answers[1].refused
    assert results[-1].result.labels.max() == MAX_OBJECT_ID
    assert summary.full


def test_commands_that_are_too_many_are_refused():
    queue, answers = CommandQueue(), []
    for _ in range(257):
        queue.put(PendingCommand(Command(type="reset"), answers.append))
    assert len(queue.take()) == 256
    assert ["try again" in told.refused for told in answers] == [True]


UNREADABLE = {
    "brackets": "[" * 60_000,
    "some brackets": "[" * 4000,
    "a long number": '{"type": "remove", "id": "a", "object": %s}' % ("9" * 5000),
    "digits": "1" * 4090,
    "bytes": b"\xff\xfe{}",
    "NaN": '{"type": "point", "xy": [NaN, 3]}',
    "too large": '{"type": "point", "xy": [1e999, 3]}',
    "a number that is too large": '{"type": "remove", "object": %s}' % ("9" * 4000),
    "a list": "[]",
    "null": "null",
    "many keys": json.dumps({str(n): 0 for n in range(300)}),
    "a long id": json.dumps({"type": "reset", "id": "a" * 200}),
    "an id that is none": '{"type": "reset", "id": {"a": 1}}',
    "half a character": '{"type": "reset", "\\ud800": 1}',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_whatever_comes_is_answered_in_a_sentence(text):
    answers = []
    CommandIntake(CommandQueue().put).receive(text, answers.append)
    (answer,) = answers
    assert 0 < len(answer.refused) < 500
    assert json.dumps(answer.to_json()).isascii()


def test_the_id_of_a_command_comes_back_whatever_the_answer_is():
    queue, answers = CommandQueue(), []
    intake = CommandIntake(queue.put)
    intake.receive('{"type": "reset", "id": "a"}', answers.append)
    intake.receive('{"type": "dance", "id": 7}', answers.append)
    intake.receive('{"type": "remove", "object": 3, "id": "c"}', answers.append)
    first, _ = queue.take()
    first.answer(Outcome(object=1))
    queue.put(PendingCommand(Command(type="reset")))
    queue.end()
    intake.receive('{"type": "reset", "id": "late"}', answers.append)
    told = [answer.to_json() for answer in answers]
    assert [(answer["id"], answer.get("ok", False)) for answer in told] == [
        (7, False),
        ("a", True),
        ("late", False),
    ]
    assert told[2]["error"] == "the run has ended"


def test_commands_that_come_too_fast_are_refused():
    clock, answers = FakeClock(), []
    queue = CommandQueue()
    intake = CommandIntake(queue.put, clock)
    for number in range(150):
        intake.receive(json.dumps({"type": "reset", "id": number}), answers.append)
    assert [answer.id for answer in answers] == list(range(100, 150))
    assert len(queue.take()) == 100
    clock.now += 1
    intake.receive('{"type": "reset"}', answers.append)
    assert len(answers) == 50
