"""What the server allows: limits, allowed folders, ages, ports, and sentences."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import (
    ConfigError,
    MaskstreamError,
    PageError,
    PromptError,
    SessionNotFoundError,
    SourceError,
    StoreExistsError,
)
from maskstream.ui.camera.live_runs import LiveRuns
from maskstream.ui.editing.actions import parse_action
from maskstream.ui.editing.quota import Limits
from maskstream.ui.editing.workspace import Workspace, resolved_roots
from maskstream.ui.server.app import ServerChoice, is_loopback, limits_of, make_app
from maskstream.ui.server.download import fetch
from tests.support.media import moving_shapes, write_images, write_video


@pytest.fixture
def clip(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    return write_video(folder / "clip.mp4", moving_shapes(3, (32, 48))[0])


def workspace(tmp_path: Path, **limits) -> Workspace:
    return Workspace(tmp_path / "sessions", PipelineConfig(), Limits(**limits))


HOSTS = [
    ("127.0.0.1", True),
    ("localhost", True),
    ("::1", True),
    ("0.0.0.0", False),  # noqa: S104
    ("a.b", False),
]


@pytest.mark.parametrize(("host", "private"), HOSTS)
def test_server_paths_are_off_where_others_can_reach_the_page(tmp_path, host, private):
    assert is_loopback(host) == private
    assert bool(limits_of(ServerChoice(tmp_path, host)).roots) == private
    assert not limits_of(ServerChoice(tmp_path, host, share=True)).roots
    assert limits_of(ServerChoice(tmp_path, host, allow=[tmp_path])).roots == (tmp_path.resolve(),)


def test_an_allowed_folder_must_be_there(tmp_path):
    with pytest.raises(PageError, match="no folder"):
        limits_of(ServerChoice(tmp_path, allow=[tmp_path / "none"]))


PATHS = [
    pytest.param("videos/clip.mp4", None, id="inside"),
    pytest.param("images", None, id="folder"),
    pytest.param("images/%d.png", None, id="pattern"),
    pytest.param("leak", "Only files in", id="link-in-folder"),
    pytest.param("videos/../secret.mp4", "Only files in", id="dots"),
    pytest.param("videos/link.mp4", "Only files in", id="link"),
    pytest.param("/etc/passwd", "Only files in", id="elsewhere"),
]


@pytest.mark.parametrize(("name", "sentence"), PATHS)
def test_only_what_lies_below_the_roots_is_opened(tmp_path, clip, name, sentence):
    (tmp_path / "secret.mp4").write_bytes(b"x")
    os.symlink(tmp_path / "secret.mp4", clip.parent / "link.mp4")
    for folder in ("images", "leak"):
        (tmp_path / folder).mkdir()
    write_images(tmp_path / "images", moving_shapes(3, (32, 48))[0])
    os.symlink(tmp_path / "secret.mp4", tmp_path / "leak" / "0.png")
    roots = [clip.parent, tmp_path / "images", tmp_path / "leak"]
    place = workspace(tmp_path, roots=resolved_roots(roots))
    if sentence is None:
        path = place.server_path(str(tmp_path / name))
        assert path == (tmp_path / name).resolve()
        place.begin(path, "opened")
        return
    with pytest.raises(MaskstreamError, match=sentence):
        place.server_path(str(tmp_path / name))


def test_without_roots_no_path_is_opened(tmp_path, clip):
    with pytest.raises(PageError, match="switched off"):
        workspace(tmp_path).server_path(str(clip))


async def parts(data: bytes, size: int = 1000):
    for start in range(0, len(data), size):
        yield data[start : start + size]


def upload(place: Workspace, name: str, data: bytes, size: int | None = None) -> str:
    return asyncio.run(place.upload(name, parts(data), size))


def test_an_upload_becomes_a_session_in_its_own_folder(tmp_path, clip):
    place = workspace(tmp_path)
    data = clip.read_bytes()
    token = upload(place, "../..\\é/my clip.mp4", data, len(data))
    session = place.editor(token).session
    assert session.source == tmp_path / "sessions" / token / "upload" / "my clip.mp4"
    assert session.title == "my clip"
    place.close()


UPLOADS = [
    pytest.param(bytes(2 << 20), None, PageError, "too large", id="too-large"),
    pytest.param(b"x", 2 << 20, PageError, "too large", id="says-too-large"),
    pytest.param(b"xy", 3, PageError, "interrupted", id="broken-off"),
    pytest.param(b"no video", None, SourceError, "as a video", id="no-video"),
    pytest.param(b"", None, SourceError, "empty", id="empty"),
]


@pytest.mark.parametrize(("data", "size", "kind", "sentence"), UPLOADS)
def test_a_refused_upload_leaves_nothing(tmp_path, data, size, kind, sentence):
    place = workspace(tmp_path, upload_mb=1)
    with pytest.raises(kind, match=sentence):
        upload(place, "a.mp4", data, size)
    assert list((tmp_path / "sessions").iterdir()) == []


@pytest.fixture
def web(clip):
    """The clip's folder, served by HTTP; its address."""
    handler = partial(Quiet, directory=str(clip.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_video_of_the_web_becomes_a_session(tmp_path, clip, web):
    place = workspace(tmp_path, roots=(tmp_path,), private_urls=True)
    session = place.editor(asyncio.run(fetch(place, f" {web}/clip.mp4?size=large "))).session
    assert session.title == "clip"
    assert session.source.read_bytes() == clip.read_bytes()
    place.close()


ADDRESSES = [
    pytest.param("{web}/none.mp4", {}, PageError, "does not give this file .404", id="missing"),
    pytest.param("{web}/big.mp4", {}, PageError, "too large", id="too-large"),
    pytest.param("{web}/text.mp4", {}, SourceError, "as a video", id="no-video"),
    pytest.param("http://127.0.0.1:1/a.mp4", {}, PageError, "cannot be reached", id="no-server"),
    pytest.param("rtsp://camera/1", {}, PageError, "under Camera", id="stream"),
    pytest.param("http://", {}, PageError, "not a file", id="nothing"),
    pytest.param("file:///etc/passwd", {}, PageError, "not a file", id="file"),
    pytest.param("{web}/clip.mp4", {"roots": ()}, PageError, "switched off", id="off"),
]


@pytest.mark.parametrize(("address", "limits", "kind", "sentence"), ADDRESSES)
def test_an_address_that_gives_no_video_leaves_nothing(
    tmp_path, clip, web, address, limits, kind, sentence
):
    (clip.parent / "big.mp4").write_bytes(bytes(2 << 20))
    (clip.parent / "text.mp4").write_text("no video")
    given = {"roots": (tmp_path,), "upload_mb": 1, "private_urls": True} | limits
    place = workspace(tmp_path, **given)
    with pytest.raises(kind, match=sentence):
        asyncio.run(fetch(place, address.format(web=web)))
    assert list((tmp_path / "sessions").iterdir()) == []


def test_sessions_are_cleaned_up_by_age(tmp_path, clip):
    now = [0.0]
    place = Workspace(tmp_path / "s", PipelineConfig(), Limits(age_h=2.0), now_s=lambda: now[0])
    old = place.begin(clip, "old")
    now[0] = (tmp_path / "s" / old / "session.json").stat().st_mtime + 3600
    assert place.sweep() == 0
    now[0] += 3601
    assert place.sweep() == 1
    with pytest.raises(PageError, match="not on this server"):
        place.editor(old)


def test_a_session_whose_video_is_gone_is_a_sentence(tmp_path, clip):
    place = workspace(tmp_path)
    token = place.begin(clip, "clip")
    place.close()
    clip.unlink()
    with pytest.raises(SourceError, match=r"There is no file .*clip\.mp4"):
        place.editor(token)


@pytest.mark.parametrize("token", ["", "..", "../x", "a" * 22, "x/../../etc/passwd0000"])
def test_a_name_that_is_no_session_is_a_sentence(tmp_path, token):
    with pytest.raises(PageError, match="not on this server"):
        workspace(tmp_path).editor(token)


ACTIONS = [
    ({"do": "fly"}, "the action"),
    ({"do": "click", "frame": 0, "x": "left", "y": 1}, "x"),
    ({"do": "box", "frame": 0, "xyxy": [1, 2, 3]}, "xyxy"),
    ({"do": "entry", "entry": {"type": "changed", "object": 1, "colour": "red"}}, "colour"),
    ({"do": "entry", "entry": {"type": "changed", "object": 1, "name": ""}}, "name"),
    ({"do": "entry", "entry": {"type": "tracked", "store": "x"}}, "entry"),
    ({}, "the action"),
]


@pytest.mark.parametrize(("values", "place"), ACTIONS)
def test_an_action_that_makes_no_sense_is_a_sentence(values, place):
    with pytest.raises(PageError, match=f"cannot be done: .*{place}"):
        parse_action(values)


ANSWERS = [
    pytest.param(SessionNotFoundError, 404, id="no-session"),
    pytest.param(ConfigError, 400, id="config"),
    pytest.param(PromptError, 400, id="prompt"),
    pytest.param(PageError, 422, id="page"),
    pytest.param(StoreExistsError, 422, id="store"),
]


@pytest.mark.parametrize(("kind", "status"), ANSWERS)
def test_an_error_is_answered_by_its_type(kind, status):
    failures = pytest.importorskip("maskstream.ui.server.failures")
    assert failures.status_of(kind("session is not on this server")) == status


def test_without_gradio_the_page_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    place = workspace(tmp_path)
    with pytest.raises(PageError, match=r"maskstream\[ui\]"):
        make_app(place, LiveRuns(place))


def test_a_port_that_is_taken_is_a_sentence(tmp_path):
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed (make setup)")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "run_pipeline.py", "ui", "--sessions", tmp_path, "--port", port]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert "Traceback" not in done.stderr
