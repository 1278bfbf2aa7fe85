"""Programs and other people's apps: named endpoints by Gradio's client, and `click_to_track`."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from maskstream.pipeline.sources import VideoFile
from maskstream.ui.server.examples import draw_shapes, shapes_frames
from tests.support.browser import ROOT, Tab, center, iou, served, why_not
from tests.support.gradio_apps import app_served, client
from tests.support.media import moving_shapes, read, write_video
from tests.ui.test_ui_guard import ask

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed (make setup)"
)
ENDPOINTS = {"/open", "/state", "/click", "/box", "/track", "/export"}
SPACE = ROOT / "examples/space/app.py"
COUNT, SIZE_HW = 8, (120, 200)


@pytest.fixture(scope="module", autouse=True)
def _no_reports():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield


@pytest.fixture(scope="module")
def shapes():
    """RGB [T, H, W, 3], and numbers of the shapes [T, H, W]."""
    return moving_shapes(COUNT, SIZE_HW, seed=1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory, shapes):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", shapes[0])


@pytest.fixture(scope="module")
def space_files(tmp_path_factory):
    """Where the app of `examples/space` has its temporary files."""
    return tmp_path_factory.mktemp("space") / "tmp"


@pytest.fixture(scope="module")
def space(space_files):
    """The app of `examples/space`, as a Space runs it."""
    with app_served(SPACE, space_files) as url:
        yield url


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The command `ui`, where nothing but uploads may be opened."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "none").mkdir()
    options = ("--upload-mb", 1, "--allow", folder / "none")
    with served(folder / "sessions", *options) as found:
        yield found


@pytest.fixture(params=["page", "space"])
def program(request, tmp_path):
    """Gradio's client of the page's server, and of somebody's own app."""
    found = request.getfixturevalue(request.param)
    with client(found if request.param == "space" else found.url, tmp_path / "got") as ready:
        yield ready


def opened(program, clip: Path) -> dict:
    from gradio_client import handle_file

    return program.predict(video=handle_file(str(clip)), api_name="/open")


def test_the_endpoints_are_named_and_described(program):
    told = program.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {*told} == ENDPOINTS
    assert all(each["description"] for each in told.values())
    types = {p["parameter_name"]: p["python_type"]["type"] for p in told["/open"]["parameters"]}
    assert "filepath" in types["video"]
    shown = io.StringIO()
    with redirect_stdout(shown):
        program.view_api()
    assert 'predict(session, frame, x, y, label, object, api_name="/click")' in shown.getvalue()


def test_a_program_opens_clicks_tracks_and_downloads(program, clip, shapes):
    truth = shapes[1]
    state = opened(program, clip)
    session = state["session"]
    assert (state["width"], state["height"]) == SIZE_HW[::-1]
    assert (state["start"], state["end"], state["objects"]) == (0, COUNT - 1, [])

    x, y = center(truth[0], 2)
    clicked = program.predict(session=session, frame=0, x=x, y=y, api_name="/click")
    assert clicked["object"] == 1
    assert clicked["mask"]["area"] == pytest.approx(int((truth[0] == 2).sum()), rel=0.2)
    again = program.predict(
        session=session, frame=0, x=x + 2, y=y, label=1, object=1, api_name="/click"
    )
    assert again["object"] == 1
    rows, columns = np.nonzero(truth[0] == 1)
    box = [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
    assert program.predict(session=session, frame=0, xyxy=box, api_name="/box")["object"] == 2

    job = program.submit(session=session, api_name="/track")
    done = job.result()
    assert done["stale"] == []
    assert {told["session"] for told in job.outputs()} == {session}
    assert program.predict(session=session, api_name="/state")["job"]["status"] == "done"

    archive = zipfile.ZipFile(program.predict(session=session, format="png", api_name="/export"))
    names = sorted(name for name in archive.namelist() if name.endswith(".png"))
    assert len(names) == COUNT
    coded = np.frombuffer(archive.read(names[-1]), np.uint8)
    labels = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
    assert iou(labels == 1, truth[-1] == 2) > 0.8

    overlay = program.predict(session=session, objects=[1], api_name="/export")
    assert Path(overlay).name == "clip_overlay.mp4"
    assert len(read(VideoFile(Path(overlay)))[2]) == COUNT


WRONG = [
    pytest.param({"api_name": "/open"}, "Give a video to open", id="no-video"),
    pytest.param({"api_name": "/open", "example": "none"}, "no example 'none'", id="no-example"),
    pytest.param({"api_name": "/open", "path": "/etc/passwd"}, "may be opened|off", id="path"),
    pytest.param({"api_name": "/state", "session": "none"}, "session is not on", id="session"),
    pytest.param({"api_name": "/click", "frame": 0, "x": 500, "y": 5}, "outside", id="outside"),
    pytest.param({"api_name": "/click", "frame": 0, "x": -1, "y": 5}, "outside", id="negative"),
    pytest.param({"api_name": "/click", "frame": 99, "x": 5, "y": 5}, "frame 99", id="frame"),
    pytest.param({"api_name": "/click", "frame": 0, "x": "a", "y": 5}, "x: ", id="no-number"),
    pytest.param({"api_name": "/box", "frame": 0, "xyxy": [1, 2, 3]}, "xyxy", id="half-a-box"),
    pytest.param({"api_name": "/box", "frame": 0, "xyxy": [9, 9, 2, 2]}, "outside", id="turned"),
    pytest.param({"api_name": "/track"}, "Click on an object first", id="nothing-to-track"),
    pytest.param({"api_name": "/export"}, "track first", id="nothing-to-export"),
]


@pytest.mark.parametrize(("call", "sentence"), WRONG)
def test_what_is_wrong_is_said_in_a_sentence(program, clip, call, sentence):
    from gradio_client.exceptions import AppError

    session = opened(program, clip)["session"]
    asked = call if call["api_name"] == "/open" else {"session": session} | call
    with pytest.raises(AppError, match=sentence) as raised:
        program.predict(**asked)
    assert session not in str(raised.value)


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}], ids=["bare", "meta"])
def test_no_file_of_the_server_is_opened_by_a_call(program, clip, meta):
    """As no client sends it: a path instead of an upload."""
    known = {each["api_name"]: each["id"] for each in program.config["dependencies"]}
    given = {"path": str(clip), **meta}
    call = {"fn_index": known["open"], "session_hash": "raw", "data": [given, None, None]}
    base = f"{program.src}gradio_api/queue/"
    assert httpx.post(f"{base}join", json=call).status_code == 200
    told = httpx.get(f"{base}data?session_hash=raw", timeout=30).text
    assert '"success":false' in told
    assert '"session":' not in told


def test_a_format_must_be_known_and_a_file_a_video(program, clip, shapes, tmp_path):
    from gradio_client.exceptions import AppError

    (tmp_path / "text.mp4").write_text("no video at all")
    with pytest.raises(AppError, match=r"^text\.mp4 cannot be opened as a video"):
        opened(program, tmp_path / "text.mp4")

    session = opened(program, clip)["session"]
    x, y = center(shapes[1][0], 2)
    program.predict(session=session, frame=0, x=x, y=y, api_name="/click")
    program.predict(session=session, api_name="/track")
    with pytest.raises(AppError, match="There is no format 'gif'"):
        program.predict(session=session, format="gif", api_name="/export")
    with pytest.raises(AppError, match="no object '7'"):
        program.predict(session=session, objects=[7], api_name="/export")


def test_canceling_the_call_stops_tracking(page, tmp_path):
    frames, truth = moving_shapes(400, SIZE_HW, seed=1)
    long_clip = write_video(tmp_path / "long.mp4", frames, options={"crf": "30"})
    with client(page.url, tmp_path / "got") as program:
        session = opened(program, long_clip)["session"]
        x, y = center(truth[0], 2)
        program.predict(session=session, frame=0, x=x, y=y, api_name="/click")
        job = program.submit(session=session, api_name="/track")
        next(iter(job))
        job.cancel()
        while (told := page.state(session)["job"])["status"] not in ("stopped", "done"):
            pass
        assert told["status"] == "stopped"
        assert told["done"] < told["total"]


def test_the_examples_of_the_guide_run(page, clip, tmp_path, monkeypatch):
    text = (ROOT / "docs/guide/gradio.md").read_text("utf-8")
    (snippet,) = [s for s in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Client(" in s]
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(snippet.replace("http://127.0.0.1:7860", page.url), names)  # noqa: S102
    assert Path(names["file"]).suffix == ".mov"
    names["client"].close()


# What the page's server does not let programs do


def address(page) -> str:
    return page.url.removeprefix("http://").rstrip("/")


def multipart(name: str, data: bytes, kind: str = "file") -> tuple[bytes, str]:
    where = f'form-data; name="files"; filename="{name}"' if kind == "file" else "form-data"
    head = f"--edge\r\nContent-Disposition: {where}\r\n\r\n".encode()
    return head + data + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge"


PROGRAM_PATHS = ["/config", "/gradio_api/info", "/gradio_api/upload", "/gradio_api/queue/join"]


@pytest.mark.parametrize("path", [*PROGRAM_PATHS, "/gradio_api/file=/etc/passwd"])
def test_the_guard_is_before_the_endpoints_too(page, path):
    for method in ("GET", "POST"):
        assert ask(address(page), path, method, Host="evil.example")[0] == 421
        assert ask(address(page), path, method, Origin="https://evil.example")[0] == 403


def test_a_program_sends_the_key(tmp_path, clip):
    from gradio_client.exceptions import AuthenticationError

    with served(tmp_path / "sessions", "--host", "0.0.0.0") as found:  # noqa: S104
        port, key = found.url.split(":")[2].split("/")[0], found.url.split("key=")[1]
        for path in (*PROGRAM_PATHS, "/gradio_api/heartbeat/x", "/gradio_api/file=x"):
            assert ask(f"127.0.0.1:{port}", path)[0] == 401
        with pytest.raises(AuthenticationError), client(f"http://127.0.0.1:{port}", tmp_path):
            pass
        with client(f"http://127.0.0.1:{port}", tmp_path, key) as program:
            assert opened(program, clip)["end"] == COUNT - 1


@pytest.mark.parametrize("path", ["/etc/passwd", "http://127.0.0.1/x", "../x", "AAAA/x.zip", ""])
def test_only_exports_are_downloaded(page, path):
    status, _, content = ask(address(page), f"/gradio_api/file={path}")
    assert status in (404, 422)
    assert b"root:" not in content


def test_videos_at_addresses_are_not_fetched_for_programs(page, tmp_path):
    from gradio_client import handle_file
    from gradio_client.exceptions import ValidationError

    with (
        client(page.url, tmp_path) as program,
        pytest.raises(ValidationError, match="give the file itself"),
    ):
        program.predict(video=handle_file("http://127.0.0.1:9/clip.mp4"), api_name="/open")


CALLS = {
    "large": (b'{"data": ["' + b"x" * (1 << 20) + b'"]}', "1 MB at most"),
    "no-json": (b"{", "no call"),
    "deep": (b"[" * 100_000, "no call"),
    "hidden": (b'{"data": [{"a": [{"path": "HTTP://10.0.0.1/x"}]}]}', "give the file itself"),
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_are_small_and_name_no_address(page, call):
    body, sentence = CALLS[call]
    status, _, content = ask(
        address(page), "/gradio_api/queue/join", "POST", body, Content_Type="application/json"
    )
    assert status == 422
    assert sentence in json.loads(content)["error"]


def test_uploads_of_programs_have_the_page_s_limit_and_are_swept_with_the_sessions(page):
    def send(body: bytes, kind: str) -> tuple[int, object]:
        where = (address(page), "/gradio_api/upload", "POST", body)
        status, _, content = ask(*where, Content_Type=kind)
        return status, json.loads(content)

    before = {*page.sessions.iterdir()}
    status, said = send(*multipart("big.mp4", bytes((1 << 20) + 1)))
    assert (status, "too large" in said["error"]) == (422, True)
    assert {*page.sessions.iterdir()} == before
    for body, kind in [
        (b"x", "text/plain"),
        multipart("", b"x", "field"),
        (b"--edge\r\n", "multipart/form-data; boundary=edge"),
        (b"nothing", "multipart/form-data; boundary=edge"),
    ]:
        status, said = send(body, kind)
        assert (status, "upload" in said["error"]) == (422, True)
    assert {*page.sessions.iterdir()} == before

    status, (reference,) = send(*multipart("../../a b.mp4", b"--edge\r\n-"))
    assert status == 200
    (folder,) = {*page.sessions.iterdir()} - before  # named like a session, and swept like one
    assert (folder / "upload" / "a b.mp4").read_bytes() == b"--edge\r\n-"
    assert Path(reference).parent.name == folder.name
    assert not Path(reference).exists()


# The component


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, maskstream.ui as ui; assert 'click_to_track' in ui.__all__;"
        "print([name for name in 'av cv2 gradio numpy openvino pydantic'.split()"
        " if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout == "[]\n"


def test_without_gradio_or_blocks_it_says_what_to_do(monkeypatch):
    from maskstream.pipeline.errors import PageError
    from maskstream.ui import click_to_track

    with pytest.raises(PageError, match=r"inside `with gradio\.Blocks\(\):`"):
        click_to_track()
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(PageError, match=r"pip install 'maskstream\[ui\]'"):
        click_to_track()


IN_AN_APP = """
import gradio
from pathlib import Path
from maskstream.ui import click_to_track

with gradio.Blocks(delete_cache=(5, 5)) as own:
    kept = click_to_track(folder="sessions", endpoints=False)
kept.close()
assert own.delete_cache == (5, 5)
assert Path("sessions").is_dir()

with gradio.Blocks() as demo:
    tool = click_to_track(overrides=["threads.inference=1"], age_h=1)
    again = click_to_track()
assert demo.delete_cache[1] == 3600
assert tool.workspace.folder != again.workspace.folder
tool.close()
assert not tool.workspace.folder.exists()
print(again.workspace.folder)
"""


def test_its_temporary_folder_ends_with_the_app(tmp_path):
    """In a process of its own: Gradio's blocks leave event loops open."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False"}
    told = subprocess.run(
        [sys.executable, "-c", IN_AN_APP],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(told.stdout.strip()).parent.is_dir()
    assert not Path(told.stdout.strip()).exists()


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_a_visitor_uploads_clicks_tracks_and_downloads(chromium, space, space_files, tmp_path):
    def sessions() -> set[Path]:
        return {*space_files.glob(f"maskstream-*/{'?' * 22}")}

    before = sessions()
    truth = [masks for _, masks in shapes_frames()]
    clip = draw_shapes(tmp_path / "my clip.mp4")
    with Tab(chromium, space, watched=False) as tab:
        tab.open()
        tab.page.wait_for_selector("input[type=file]", state="attached")
        tab.page.locator("button:text-is('Track')").click()
        tab.page.wait_for_selector("text=Open a video first.")
        tab.page.set_input_files("input[type=file]", str(clip))
        tab.page.wait_for_selector("img[src*='file=']")
        image = tab.page.locator("img[src*='file=']")
        tab.page.wait_for_selector('text="Click on an object."')
        tab.page.mouse.click(*_on_screen(image, center(truth[0], 1), truth[0].shape))
        tab.page.wait_for_selector("text=Click to correct the mask, then track.")
        tab.page.locator("button:text-is('Track')").click()
        video = tab.page.wait_for_selector("video[src*='file=']", state="attached")
        assert "my_clip_overlay.mp4" in video.get_attribute("src")
        tab.page.wait_for_selector("text=Tracked.")

        tab.page.get_by_label("Format").click()
        tab.page.get_by_role("option", name="Label maps (PNG)").click()
        tab.page.locator("button:text-is('Export')").click()
        with tab.page.expect_download() as got:
            tab.page.locator("a[download*='.zip'], a[href*='.zip']").first.click()
        archive = zipfile.ZipFile(got.value.path())
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        coded = np.frombuffer(archive.read(names[-1]), np.uint8)
        labels = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
        assert iou(labels == 1, truth[-1] == 1) > 0.8

        (first,) = sessions() - before
        tab.page.get_by_label("or an example").click()
        tab.page.get_by_role("option", name="Drawn shapes").click()
        tab.page.wait_for_selector('text="Click on an object."')
        (second,) = sessions() - before
        assert second != first
        with tab.page.expect_response(re.compile("file=.*image")):
            tab.page.get_by_label("number input for Frame").fill("20")
            tab.page.keyboard.press("Tab")
        tab.page.mouse.click(*_on_screen(image, center(truth[20], 2), truth[0].shape))
        tab.page.wait_for_selector("text=Click to correct the mask, then track.")
        (prompted,) = json.loads((second / "session.json").read_text())["events"]
        assert prompted["frame"] == 20
        mask = cv2.imread(str(second / prompted["mask"]), cv2.IMREAD_GRAYSCALE)
        assert iou(mask > 0, truth[20] == 2) > 0.8


def _on_screen(image, at: tuple[int, int], size_hw: tuple[int, int]) -> tuple[float, float]:
    """Where a pixel of the video lies in a window: the image is centered, as large as fits."""
    place, (height, width) = image.bounding_box(), size_hw
    scale = min(place["width"] / width, place["height"] / height)
    return (
        place["x"] + (place["width"] - scale * width) / 2 + scale * (at[0] + 0.5),
        place["y"] + (place["height"] - scale * height) / 2 + scale * (at[1] + 0.5),
    )


def test_the_space_says_what_it_is():
    import yaml

    head = (SPACE.parent / "README.md").read_text("utf-8").split("---")[1]
    told = yaml.safe_load(head)
    assert (told["sdk"], told["app_file"]) == ("gradio", "app.py")
    assert told["sdk_version"].startswith("6.")
    assert "maskstream[ui" in (SPACE.parent / "requirements.txt").read_text("utf-8")
