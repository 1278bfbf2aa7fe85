"""Gradio apps that are really served, and the real client of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.browser import ROOT, free_port


@contextmanager
def app_served(script: Path, folder: Path) -> Iterator[str]:
    """A script that launches an app, in a process of its own; gives the app's address.

    folder: for its temporary files, sessions among them.
    """
    port = free_port()
    folder.mkdir()
    environment = os.environ | {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SERVER_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(folder),
    }
    with subprocess.Popen(
        [sys.executable, str(script)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said = iter(process.stdout or ())
            assert any(f":{port}" in line for line in said), "the app does not start"
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def client(url: str, folder: Path, key: str | None = None) -> Iterator:
    """Gradio's client of an app; it downloads into `folder`."""
    from gradio_client import Client

    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    found = Client(url, download_files=folder, headers=headers, verbose=False)
    try:
        yield found
    finally:
        found.close()
