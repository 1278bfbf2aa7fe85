"""Addresses with passwords: what is asked of the server, what is shown, why one does not open."""

import json

import pytest

from maskstream.pipeline.addresses import masked, quoted
from maskstream.pipeline.cli.live_request import LiveRequest
from maskstream.pipeline.errors import SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.live.reconnect import ReconnectingSource
from maskstream.pipeline.sources import open_source
from maskstream.pipeline.sources.live import InputOptions, open_live
from maskstream.pipeline.store import MaskStore
from tests.support.camera_server import camera_server
from tests.support.clock import FakeClock
from tests.support.live_runs import PATIENT
from tests.support.media import moving_shapes, read, write_video
from tests.support.stores import write

SECRET = "hidden-w0rd"  # noqa: S105


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:hidden-w0rd@cam/1", "rtsp://me:***@cam/1"),
        ("rtsp://me:a@hidden-w0rd@cam/1", "rtsp://me:***@cam/1"),
        ("rtsp://me:#hidden-w0rd@cam/1", "rtsp://me:***@cam/1"),
        ("rtsp://me:a/hidden-w0rd@cam/1", "rtsp://me:***@cam/1"),
        ("rtsp://me:a?hidden-w0rd@cam/1", "rtsp://me:***@cam/1"),
        ("rtsp://me@home:hidden-w0rd@cam/1", "rtsp://me@home:***@cam/1"),
        ("rtsp://me:a@b/hidden-w0rd@cam/1", "rtsp://me:***@cam/1"),
        ("rtsp://:hidden-w0rd@[::1]:554/1", "rtsp://:***@[::1]:554/1"),
        ("RTSP:/me:hidden-w0rd@cam/1", "RTSP:/me:***@cam/1"),
        ("rtsp:rtsp://me:hidden-w0rd@cam/1", "rtsp:rtsp://me:***@cam/1"),
        (
            "http://cam/v?user=me&pwd=hidden-w0rd&channel=1",
            "http://cam/v?user=me&pwd=***&channel=1",
        ),
        ("rtsp://cam/user=me_password=hidden-w0rd", "rtsp://cam/user=me_password=***"),
        ("srt://cam:9?passphrase=hidden-w0rd", "srt://cam:9?passphrase=***"),
        (
            "a http://a:hidden-w0rd@b and http://c:hidden-w0rd@d.",
            "a http://a:***@b and http://c:***@d.",
        ),
        ("http://cam:8080/@me/1?size=3", "http://cam:8080/@me/1?size=3"),
        ("http://[::1]:80/@me", "http://[::1]:80/@me"),
        ("rtsp://me@cam:554/1", "rtsp://me@cam:554/1"),
        ("C:/videos/a:b@c.mp4", "C:/videos/a:b@c.mp4"),
        ("clips/me:pass=1@home.mp4", "clips/me:pass=1@home.mp4"),
    ],
)
def test_passwords_are_masked(text, shown):
    assert masked(text) == shown
    assert masked(shown) == shown


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        ("rtsp://me:a@b#c@cam/1", "rtsp://me:a%40b%23c@cam/1"),
        ("rtsp://me:a/b?c d@cam:554/1", "rtsp://me:a%2Fb%3Fc%20d@cam:554/1"),
        ("rtsp://me:100%sure%40@cam/1", "rtsp://me:100%25sure%40@cam/1"),
        ("rtsp://me@home:x@cam/1", "rtsp://me%40home:x@cam/1"),
        ("rtsp://me:a@b@[::1]:554/1", "rtsp://me:a%40b@[::1]:554/1"),
        ("rtsp://me:x@cam/live@1", "rtsp://me:x@cam/live@1"),
        ("http://cam:8080/@me?mail=a@b", "http://cam:8080/@me?mail=a@b"),
        ("rtsp://cam/a b", "rtsp://cam/a%20b"),
    ],
)
def test_raw_characters_of_a_password_are_quoted(raw, sent):
    assert quoted(raw) == sent


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_gets_the_raw_password(scheme):
    with camera_server(404, needs_login=True) as server:
        target = f"{scheme}://me:p@ss#w/o?rd%@{server.host}/1"
        with pytest.raises(UnreadableSourceError, match="no stream of this path"):
            read(open_live(target, InputOptions(stall_s=5)).source)
        assert set(server.logins) == {"me:p@ss#w/o?rd%"}


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
@pytest.mark.parametrize(
    ("status", "login", "says"),
    [
        (401, f"me:{SECRET}@", "refuses the user name or the password"),
        (403, f"me:{SECRET}@", "refuses the user name or the password"),
        (401, "", "asks for a user name and a password"),
        (404, f"me:{SECRET}@", "no stream of this path"),
        (500, f"me:{SECRET}@", "camera or the server is on"),
    ],
)
def test_what_a_server_refuses_is_its_own_sentence(scheme, status, login, says):
    with camera_server(status) as server:
        target = f"{scheme}://{login}{server.host}/1"
        with pytest.raises(UnreadableSourceError, match=says) as caught:
            read(open_live(target, InputOptions(stall_s=5)).source)
    assert SECRET not in str(caught.value)
    assert server.host in str(caught.value)
    assert caught.value.__suppress_context__  # FFmpeg's own error names the whole address


@pytest.mark.parametrize("scheme", ["http", "rtsp", "tcp"])
@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("127.0.0.1:9", "nothing listens on this port"),
        ("255.255.255.255:9", "no route to this host"),
        ("no-such-host.invalid:9", "no host of this name"),
    ],
)
def test_what_is_not_reached_is_its_own_sentence(scheme, host, says):
    with pytest.raises(UnreadableSourceError, match=says) as caught:
        read(open_live(f"{scheme}://me:{SECRET}@{host}/1", InputOptions(stall_s=5)).source)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("open_it", [open_live, open_source])
def test_an_address_of_no_kind_is_named_without_its_password(open_it):
    with pytest.raises(SourceNotFoundError, match=r"nonsense://me:\*\*\*@cam/1") as caught:
        open_it(f"nonsense://me:{SECRET}@cam/1")
    assert SECRET not in str(caught.value)


def test_a_stream_is_no_file():
    with pytest.raises(SourceNotFoundError, match="give it to `live`"):
        open_source("rtsp://cam/1")


def test_a_representation_shows_no_password():
    options = InputOptions(extra={"cookies": SECRET})
    address = f"rtsp://me:{SECRET}@cam/1"
    live = open_live(address, options)
    request = LiveRequest([address], input_options=[f"cookies={SECRET}"])
    assert SECRET not in repr([live, options, request])


def test_a_store_from_before_passwords_were_masked_does_not_show_it(cli, tmp_path):
    path = tmp_path / "old.zarr"
    write(path, range(3))
    header = path / "zarr.json"
    header.write_text(header.read_text().replace("clip.mp4", f"rtsp://me:{SECRET}@cam/1"))
    said = [*cli("info", path), *cli("info", path, "--json")]
    said += cli("export", path, "-o", tmp_path / "coco.json", "--format", "coco")
    assert not [text for text in said if SECRET in str(text)]
    assert "rtsp://me:***@cam/1" in said[1]
    assert SECRET not in (tmp_path / "coco.json").read_text()


def test_why_a_stream_is_away_shows_no_password(tmp_path):
    shapes, _ = moving_shapes(5, (36, 64))
    clip = write_video(tmp_path / "sent.ts", shapes).read_bytes()

    class UntilRefused(FakeClock):
        def wait(self, event, seconds):
            if "no stream of this path" in source.trouble:
                source.stop()
            return super().wait(event, seconds)

    with camera_server(200, clip) as server:
        live = open_live(f"http://me:{SECRET}@{server.host}/1.ts")
        source = ReconnectingSource(live.source, reopenable=True, clock=UntilRefused())
        with source.open() as reader:
            server.status = 404
            assert len(list(reader)) == 5
    assert source.trouble.startswith(f"http://me:***@{server.host}/1.ts cannot be opened")


def test_a_password_is_in_no_output(cli, tmp_path):
    shapes, _ = moving_shapes(30, (72, 128))
    clip = write_video(tmp_path / "sent.ts", shapes).read_bytes()
    settings = [option for setting in PATIENT for option in ("--set", setting)]
    place = tmp_path / "made"
    place.mkdir()
    store = place / "live.zarr"
    with camera_server(200, clip, needs_login=True) as server:
        url = f"http://me:{SECRET}@{server.host}/1.ts?token={SECRET}"
        options = ["--duration", "2", "-o", store, "--publish", "jsonl:-", *settings]
        options += ["--publish", f"mcap:{place / 'live.mcap'}", "--record", place / "kept.mkv"]
        said = [*cli("--verbose", "live", url, "--json", *options)]
        assert said[0] == 0, said[2]
        assert server.logins[0] == f"me:{SECRET}"
    summary = json.loads(said[1].splitlines()[-1])
    assert summary["frames"] > 0
    said += [*cli("info", store), *cli("info", store, "--json")]
    said += cli("export", store, "-o", place / "coco.json", "--format", "coco")
    said += cli("live", url.replace("/1.ts", "/2.ts"), "--json")  # nobody is there any more
    assert MaskStore(store).source.name.startswith("http://me:***@127.0.0.1:")
    assert not [text for text in said if SECRET in str(text)]
    files = [file for file in place.rglob("*") if file.is_file()]
    assert (store / "zarr.json") in files
    assert (place / "coco.json") in files
    assert not [file.name for file in files if SECRET.encode() in file.read_bytes()]
