"""The installed wheel, beside PyPI's `trackers`: `make wheel` runs this in another folder."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib.metadata import files
from pathlib import Path


def check_where_it_lies() -> None:
    """The wheel holds `maskstream/` and nothing else, and both packages can be imported."""
    import maskstream
    import trackers
    from maskstream.trackers.tracker import Tracker

    installed = Path(sys.prefix).resolve()
    assert installed in Path(maskstream.__file__).resolve().parents, maskstream.__file__
    assert trackers.SORTTracker is not Tracker
    tops = {file.parts[0] for file in files("maskstream") or [] if file.parts[0] != ".."}
    version = maskstream.__version__
    assert tops == {"maskstream", f"maskstream-{version}.dist-info"}, tops


def check_what_it_does() -> None:
    """The main job, as the command does it."""
    command = [str(Path(sys.executable).with_name("maskstream"))]
    for arguments in (
        ["--version"],
        ["config"],
        ["demo", "--folder", "out"],
        ["info", "out/masks.zarr"],
    ):
        print("$ maskstream", *arguments, flush=True)  # noqa: T201
        text = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
        assert text.stdout


def check_the_page() -> None:
    """The page is served with all its files, and so are its examples and endpoints."""
    command = [str(Path(sys.executable).with_name("maskstream")), "ui", "--sessions", "sessions"]
    print("$", *command, flush=True)  # noqa: T201
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().split()[4].rstrip("./") if process.stdout else ""

            def get(path: str) -> bytes:
                with urllib.request.urlopen(f"{url}{path}") as answer:  # noqa: S310
                    return answer.read()

            for page in ("/", "/camera"):
                named = re.findall(r'(?:src|href)="(/?static/[^"]+)"', get(page).decode())
                assert named, page
                assert all(get(f"/{name.lstrip('/')}") for name in named)
            scripts = [file.name for file in files("maskstream") or [] if file.suffix == ".js"]
            assert all(get(f"/static/{name}") for name in scripts)
            for name in ("shapes", "bikes"):
                assert get(f"/api/examples/{name}.jpg").startswith(b"\xff\xd8")
            check_the_endpoints(url)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def check_the_endpoints(url: str) -> None:
    """A program opens an example, clicks, tracks and downloads."""
    from gradio_client import Client

    client = Client(url, download_files="got", verbose=False)
    session = client.predict(example="shapes", api_name="/open")["session"]
    client.predict(session=session, frame=0, x=133, y=144, api_name="/click")
    client.predict(session=session, api_name="/track")
    assert Path(client.predict(session=session, api_name="/export")).stat().st_size > 1000
    client.close()


if __name__ == "__main__":
    check_where_it_lies()
    check_what_it_does()
    check_the_page()
    print("the installed wheel works")  # noqa: T201
