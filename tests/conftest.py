"""Fixtures shared by the tests."""

import os
import sys

import pytest

from maskstream.pipeline.cli import main


@pytest.fixture(autouse=True, scope="module")
def ordinary_schedule():
    """No test leaves its process a real-time one: a browser that inherits that starves the rest."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in this process; gives (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["maskstream", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return int(code or 0), out, err

    return call


@pytest.fixture(scope="module")
def chromium():
    """The system's Chromium, for the tests of the page."""
    from tests.support.browser import browser

    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The page, served in a process of its own."""
    from tests.support.browser import served

    with served(tmp_path_factory.mktemp("sessions")) as found:
        yield found


@pytest.fixture(scope="module")
def truth():
    """What is where in the drawn example, by frames: numbers of shapes [H, W]."""
    from maskstream.ui.server.examples import shapes_frames

    return [masks for _, masks in shapes_frames()]


@pytest.fixture(scope="session")
def s3_server():
    """A server that speaks S3, in this process; gives its address."""
    server_module = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The file system of an empty bucket `films` on that server."""
    import fsspec

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
    }.items():
        monkeypatch.setenv(name, value)
    files = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    if files.exists("films"):
        files.rm("films", recursive=True)
    files.mkdir("films")
    return files
