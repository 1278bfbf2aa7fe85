"""The installed wheel, beside PyPI's `trackers`: `make wheel` runs this in another folder."""

import subprocess
import sys
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


if __name__ == "__main__":
    check_where_it_lies()
    check_what_it_does()
    print("the installed wheel works")  # noqa: T201
