"""What a stranger on the network, and a foreign page in a visitor's browser, cannot do."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from maskstream.pipeline.access import COOKIE, Access
from maskstream.pipeline.errors import PageError, UnreadableSourceError
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.sources import open_source
from tests.exports.test_export_time import masks_of
from tests.support.browser import served
from tests.support.kinds import encode
from tests.support.media import read

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed (make setup)"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Host and port of a page that only this machine can reach."""
    with served(tmp_path_factory.mktemp("sessions")) as found:
        yield found.url.removeprefix("http://").rstrip("/")


def ask(address: str, path: str = "/", method: str = "GET", body: bytes = b"", **headers: str):
    """Status, headers and body of a request with exactly these headers."""
    host, port = address.rsplit(":", 1)
    given = {"Host": address, "Connection": "close", "Content-Length": str(len(body))} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    return (
        int(first.split()[1]),
        {k.lower(): v for k, v in (x.split(": ", 1) for x in rest)},
        content,
    )


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "localhost.evil.example", ""]
)
def test_another_host_name_is_not_answered(address, host):
    status, _, content = ask(address, "/api/about", Host=host)
    assert status == 421
    assert b"roots" not in content


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:99"])
def test_the_own_names_are_answered(address, host):
    assert ask(address, "/api/about", Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
def test_a_foreign_page_gets_nothing_and_no_permission(address, origin):
    for method in ("GET", "POST", "OPTIONS"):
        status, headers, content = ask(address, "/api/about", method, Origin=origin)
        assert status == 403
        assert not [name for name in headers if name.startswith("access-control-allow")], headers
        assert b"roots" not in content
    assert ask(address, "/api/about", Origin=f"http://{address}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/upload", "/file=/etc/passwd", "/gradio_api/run/open", "/gradio_api/call/open"]
    + ["/gradio_api/proxy=http://127.0.0.1", "/login_check", "/monitoring", "/docs"],
)
def test_the_frameworks_own_endpoints_are_closed(address, path):
    for method in ("GET", "POST"):
        assert ask(address, path, method)[0] == 404


def test_pages_are_not_framed_and_do_not_tell_their_address(address):
    _, headers, _ = ask(address)
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("path", "method", "body"),
    [
        ("/api/s/nothing", "GET", b""),
        ("/api/s/../../etc", "GET", b""),
        ("/api/s/AAAAAAAAAAAAAAAAAAAAAA/image/x", "GET", b""),
        ("/api/s/AAAAAAAAAAAAAAAAAAAAAA/image/99999999999999999999", "GET", b""),
        ("/api/sessions", "POST", b"{"),
        ("/api/sessions", "POST", b"[]"),
        ("/api/sessions", "POST", b'{"path": 3}'),
        ("/api/sessions", "POST", b'{"path": "\\u0000"}'),
        ("/api/sessions", "POST", b'{"example": "../x"}'),
        ("/api/fetch", "POST", b'{"url": "http://[::1"}'),
        ("/api/fetch", "POST", b'{"url": "file:///etc/passwd"}'),
        ("/api/upload", "PUT", b""),
        ("/api/upload?name=", "PUT", b"x"),
        ("/api/examples/%00.jpg", "GET", b""),
        ("/api/s/AAAAAAAAAAAAAAAAAAAAAA/do", "POST", b"\xff\xfe"),
        ("/api/live", "POST", b"{"),
    ],
)
def test_malformed_requests_are_the_callers_fault(address, path, method, body):
    status, _, content = ask(address, path, method, body, Content_Type="application/json")
    assert 400 <= status < 500, (status, content[:300])


def test_where_others_reach_the_page_a_key_is_needed(tmp_path):
    with served(tmp_path / "sessions", "--host", "0.0.0.0") as found:  # noqa: S104
        port = found.url.split(":")[2].split("/")[0]
        address, key = f"127.0.0.1:{port}", found.url.split("key=")[1]
        for path in ("/", "/api/about", "/static/app.js", "/camera"):
            assert ask(address, path)[0] == 401
        assert ask(address, "/login?key=wrong")[0] == 401
        assert ask(address, "/login")[0] == 401
        status, headers, _ = ask(address, f"/login?key={key}")
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        for given in ({"Cookie": cookie.split(";")[0]}, {"Authorization": f"Bearer {key}"}):
            assert ask(address, "/api/about", **given)[0] == 200
        assert ask(address, "/api/about", Cookie=f"{COOKIE}=wrong")[0] == 401
        about = json.loads(ask(address, "/api/about", Authorization=f"Bearer {key}")[2])
        assert about["roots"] == []


def test_the_key_may_be_given(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKSTREAM_KEY", "a long secret")
    with served(tmp_path / "sessions", "--host", "0.0.0.0") as found:  # noqa: S104
        port = found.url.split(":")[2].split("/")[0]
        bearer = {"Authorization": "Bearer a long secret"}
        assert ask(f"127.0.0.1:{port}", "/api/about", **bearer)[0] == 200
        assert ask(f"127.0.0.1:{port}", "/robots.txt")[0] < 500


def test_host_names_are_given_or_those_of_the_shared_link():
    access = Access(["Studio.local"], share=True)
    assert access.knows_host("studio.local:7860")
    assert access.knows_host("abc.gradio.live")
    assert access.knows_host("192.168.1.4:7860")
    assert not access.knows_host("gradio.live.evil.example")
    assert not Access().knows_host("abc.gradio.live")


PLAYLISTS = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{other}\n#EXT-X-ENDLIST\n",
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{other}\n#EXT-X-ENDLIST\n",
    "concat.txt": "ffconcat version 1.0\nfile '{other}'\n",
    "concat.mov": "ffconcat version 1.0\nfile '{other}'\n",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
    "dash.mpd": '<?xml version="1.0"?><MPD><Period><BaseURL>{other}</BaseURL></Period></MPD>',
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_opens_no_other_file(tmp_path, name):
    other = encode(tmp_path / "secret.ts")
    (tmp_path / name).write_text(PLAYLISTS[name].format(other=other))
    with pytest.raises(UnreadableSourceError, match="playlist, which names other files"):
        read(open_source(tmp_path / name))


@pytest.fixture
def web():
    """A server on this machine that answers with a redirect to the path in the query."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", self.path.split("?to=")[1])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{port}/?to=x", "http://localhost:{port}/?to=x", "http://[::1]/a.mp4"]
    + ["http://10.0.0.1/a", "http://169.254.169.254/latest", "http://192.168.0.1/", "http://0/"]
    + ["http://2130706433/a", "http://0x7f000001/a", "http://[::ffff:127.0.0.1]/a"],
)
def test_addresses_of_this_network_are_not_fetched(tmp_path, web, url):
    from maskstream.pipeline.config import PipelineConfig
    from maskstream.ui.editing.quota import Limits
    from maskstream.ui.editing.workspace import Workspace
    from maskstream.ui.server.download import fetch

    place = Workspace(tmp_path / "sessions", PipelineConfig(), Limits((tmp_path,)))
    with pytest.raises(PageError, match=r"of this machine or its network|cannot be reached"):
        asyncio.run(fetch(place, url.format(port=web)))


def test_a_redirect_is_checked_like_the_first_address(tmp_path, web, monkeypatch):
    from maskstream.pipeline.config import PipelineConfig
    from maskstream.ui.editing.quota import Limits
    from maskstream.ui.editing.workspace import Workspace
    from maskstream.ui.server import download

    checked = []

    def public(host: str, port: int) -> str:
        checked.append(host)
        if len(checked) > 1:
            raise PageError(f"{host} is an address of this machine or its network")
        return "127.0.0.1"

    monkeypatch.setattr(download, "_public_address", public)
    place = Workspace(tmp_path / "sessions", PipelineConfig(), Limits((tmp_path,)))
    with pytest.raises(PageError, match=r"169.254.169.254 is an address"):
        asyncio.run(
            download.fetch(place, f"http://videos.example:{web}/?to=http://169.254.169.254/")
        )
    assert checked == ["videos.example", "169.254.169.254"]


@pytest.mark.parametrize(
    "form", ["coco", "coco-ytvis", "ome-zarr", "cvat", "labelme", "youtube-vos"]
)
def test_exported_files_do_not_tell_where_the_video_lies(tmp_path, form):
    folder = tmp_path / "sessions" / "Secret-Token-000000000" / "upload"
    folder.mkdir(parents=True)
    store = masks_of(encode(folder / "clip.mp4", count=3))
    from maskstream.pipeline.exports.registry import FORMATS

    place = tmp_path / f"out{FORMATS[form].suffix}"
    try:
        export_store(store, place, ExportChoice(form))
    except Exception as error:
        pytest.skip(str(error))
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert b"Secret-Token" not in file.read_bytes(), file


def test_messages_do_not_tell_where_a_session_lies(address):
    garbage = bytes(np.random.default_rng(0).integers(0, 255, 5000, dtype=np.uint8))
    status, _, content = ask(address, "/api/upload?name=clip.mp4", "PUT", garbage)
    assert status == 422
    sentence = json.loads(content)["error"]
    assert sentence.startswith("clip.mp4")
    assert "/" not in sentence.split(" ")[0]
