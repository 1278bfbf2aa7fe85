"""Servers of a live run: one form of [HOST:]PORT for all, a key where others reach the page."""

import http.client
import json
import re
import socket
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from maskstream.pipeline.config import load_config
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.commands import CommandQueue
from maskstream.pipeline.live.endpoints import Endpoint, parse_endpoint
from maskstream.pipeline.live.governor import budget_steps
from maskstream.pipeline.live.preview import PreviewServer
from maskstream.pipeline.live.publishers import Channel, ChannelOptions, open_channel
from maskstream.pipeline.live.session import LiveSession
from tests.support.live_runs import HERE, PATIENT

IPV6 = Endpoint("::1", 0)
EVERYWHERE = "0.0.0.0"  # noqa: S104
TIMEOUT_S = 20


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(
    ("text", "endpoint", "shown"),
    [
        ("9105", Endpoint("127.0.0.1", 9105), "127.0.0.1:9105"),
        ("10.0.0.7:8080", Endpoint("10.0.0.7", 8080), "10.0.0.7:8080"),
        ("[::1]:9105", Endpoint("::1", 9105), "[::1]:9105"),
        ("[0:0::1]:1", Endpoint("::1", 1), "[::1]:1"),
        ("robot.local:80", Endpoint("robot.local", 80), "robot.local:80"),
    ],
)
def test_an_endpoint_is_a_port_with_or_without_a_host(text, endpoint, shown):
    assert parse_endpoint(text, "--metrics") == endpoint
    assert str(endpoint) == shown


WRONG = ("", "x", "1:x", ":80", "::1", "::1:80", "[::1]", "70000", "a:-1", "٣", "[a]:1")


@pytest.mark.parametrize("text", WRONG)
def test_other_endpoints_are_a_sentence(text):
    with pytest.raises(ConfigError, match=r"--metrics takes|not an IPv6"):
        parse_endpoint(text, "--metrics")


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.3.0.1", True), ("::1", True), ("localhost", True)]
    + [(EVERYWHERE, False), ("::", False), ("192.168.0.7", False), ("robot.local", False)],
)
def test_only_loopback_addresses_are_local(host, local):
    assert Endpoint(host, 80).is_local is local


def test_servers_of_further_cameras_listen_one_port_further():
    assert Endpoint("::1", 80).beside(2) == Endpoint("::1", 82)
    assert HERE.beside(2) == HERE
    with pytest.raises(ConfigError, match="smaller"):
        Endpoint("::1", 65535).beside(1)


@pytest.mark.parametrize(
    "options",
    [["--preview", "::1:80"], ["--metrics", "host"], ["--publish", "jsonl:a:b:1"]]
    + [["--publish", "foxglove:[::1]"]],
)
def test_every_server_of_the_command_takes_the_same_form(cli, options):
    settings = [option for setting in PATIENT for option in ("--set", setting)]
    code, _, err = cli("live", "lavfi:testsrc2=size=64x36", "--quiet", *options, *settings)
    assert code == 1
    assert "takes [HOST:]PORT" in err


def server_of(kind, endpoint):
    if kind == "foxglove":
        pytest.importorskip("foxglove")
    return open_channel(Channel(kind, str(endpoint)), CommandQueue().put)


@needs_ipv6
@pytest.mark.parametrize("kind", ["jsonl", "foxglove"])
def test_publishers_serve_ipv6(kind):
    server = server_of(kind, IPV6)
    with socket.create_connection(("::1", server.port), TIMEOUT_S):
        pass
    server.close(complete=True)


@pytest.mark.parametrize("kind", ["jsonl", "foxglove", "preview"])
def test_a_client_that_only_connects_does_not_hold_up_the_end(kind):
    if kind == "preview":
        server = PreviewServer(HERE, dict, CommandQueue().put)
        port = urlsplit(server.url).port
    else:
        server = server_of(kind, HERE)
        port = server.port
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S):
        closing = threading.Thread(target=server.close, kwargs={"complete": True}, daemon=True)
        closing.start()
        closing.join(TIMEOUT_S)
        assert not closing.is_alive()


def test_a_port_that_is_taken_is_a_sentence_also_for_a_further_camera():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: .*choose another port"):
            open_channel(
                Channel("jsonl", str(port - 1)), CommandQueue().put, ChannelOptions("rear", 1)
            )


@pytest.fixture
def session():
    return LiveSession.open(iter([np.zeros((9, 16, 3), np.uint8)]), load_config(overrides=PATIENT))


@contextmanager
def metrics_of(endpoint, statuses):
    pytest.importorskip("prometheus_client")
    from maskstream.pipeline.live.metrics import MetricsServer

    server = MetricsServer(endpoint, statuses)
    try:
        yield get(server.url).decode()
    finally:
        server.close()


def get(url):
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310
        return answer.read()


@needs_ipv6
def test_metrics_and_preview_serve_ipv6(session):
    with metrics_of(IPV6, lambda: {"": session.status()}) as text:
        assert "maskstream_frames_total 0.0" in text
    preview = PreviewServer(IPV6, lambda: {"frames": 1}, session.commands.put)
    assert preview.url.startswith("http://[::1]:")
    assert json.loads(get(f"{preview.url}status")) == {"frames": 1}
    preview.close(complete=True)


def test_metrics_of_several_cameras_have_labels_and_the_process_is_counted_once(session):
    both = {"front": session.status(), "rear": session.status()}
    with metrics_of(HERE, lambda: both) as text:
        assert 'maskstream_frames_total{camera="rear"} 0.0' in text
        assert 'maskstream_latency_seconds{camera="front",quantile="0.95"}' in text
        assert text.count("\nmaskstream_memory_bytes") == 1


def ask(port, path, **headers):
    """Status and headers of a request that follows no redirection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("GET", path, headers={"Host": "127.0.0.1", **headers})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers


def test_a_preview_that_others_reach_asks_for_its_key():
    endpoint = Endpoint(EVERYWHERE, 0)
    preview = PreviewServer(endpoint, dict, CommandQueue().put, key="open-sesame")
    port = urlsplit(preview.url).port
    assert preview.url.endswith(f":{port}/?key=open-sesame")
    assert {ask(port, path)[0] for path in ("/", "/status", "/stream", "/?key=guess")} == {401}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("POST", "/command", b"{}", {"Content-Type": "application/json"})
    assert connection.getresponse().status == 401
    connection.close()
    status, headers = ask(port, "/?key=open-sesame")
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert ask(port, "/status", Cookie=cookie)[0] == 200
    assert ask(port, "/status", Authorization="Bearer open-sesame")[0] == 200
    assert ask(port, "/status", Cookie=cookie, Host="robot.local")[0] == 200
    preview.close(complete=True)


def test_a_preview_without_a_key_does_not_answer_to_names_of_others():
    preview = PreviewServer(HERE, dict, CommandQueue().put)
    port = urlsplit(preview.url).port
    assert ask(port, "/status", Host=f"localhost:{port}")[0] == 200
    assert ask(port, "/status", Host="evil.example")[0] == 421
    preview.close(complete=True)


def test_the_command_makes_a_key_where_others_reach_the_preview(cli, monkeypatch):
    monkeypatch.setenv("MASKSTREAM_KEY", "given")
    settings = [option for setting in PATIENT for option in ("--set", setting)]
    code, _, err = cli(
        "live",
        "lavfi:testsrc2=size=64x36:duration=1",
        "--duration",
        "0.2s",
        "--no-seed",
        "--preview",
        "0.0.0.0:0",
        *settings,
    )
    assert code == 0
    assert "/?key=given" in err


def test_pages_and_metrics_show_no_password_of_a_source():
    secret = "hidden-w0rd"  # noqa: S105
    url = f"http://me:{secret}@127.0.0.1:9/1?token={secret}"
    session = LiveSession.open(url, load_config(overrides=PATIENT))
    session._source.trouble = ""
    with pytest.raises(Exception, match="nothing listens") as caught:
        session.run()
    session._source.trouble = str(caught.value)
    preview = PreviewServer(HERE, lambda: session.status().to_json(), session.commands.put)
    shown = [get(preview.url + path).decode() for path in ("", "status")]
    preview.close(complete=True)
    with metrics_of(HERE, lambda: {"": session.status()}) as text:
        shown.append(text)
    assert "http://me:***@127.0.0.1:9" in shown[1]
    assert not [text for text in shown if secret in text]


def test_the_runbook_explains_every_metric(session):
    runbook = (Path(__file__).parents[2] / "docs/guide/robotics.md").read_text("utf-8")
    with metrics_of(HERE, lambda: {"": session.status()}) as text:
        names = set(re.findall(r"(?m)^# HELP maskstream_(\w+)", text))
    assert len(names) > 10
    assert [name for name in sorted(names) if f"| `{name}` |" not in runbook] == []
    last = len(budget_steps(load_config())) - 1
    assert f"({last} as configured)" in runbook
