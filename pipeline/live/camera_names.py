"""Names of the cameras of one run, and of what belongs to each: `front`, `run-front.zarr`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from maskstream.pipeline.errors import ConfigError

_NAMED = re.compile(r"([A-Za-z]\w{0,31})=(.+)", re.ASCII)


def name_cameras(sources: Sequence[str]) -> dict[str, str]:
    """The sources by name, in their order.

    Each is SOURCE or NAME=SOURCE (letters, digits, underscores). Without a name several are
    `camera1`, `camera2`, …; a single one has none: "". Raises `ConfigError`.
    """
    named: dict[str, str] = {}
    for number, text in enumerate(sources, 1):
        found = None if Path(text).exists() else _NAMED.fullmatch(text)
        default = f"camera{number}" if len(sources) > 1 else ""
        name, source = (found[1], found[2]) if found else (default, text)
        if name in named:
            raise ConfigError(f"two cameras are named '{name}'; give each a name of its own")
        if source == "-" and source in named.values():
            raise ConfigError("standard input (-) can be the source of one camera only")
        named[name] = source
    return named


def own_path(path: str, camera: str) -> str:
    """The path of one camera: `run.zarr` becomes `run-front.zarr`, a folder `runs/front/`."""
    if not camera:
        return path
    if path.endswith("/"):
        return f"{path}{camera}/"
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    own = f"{stem}-{camera}{dot}{suffix}" if stem else f"{name}-{camera}"
    return f"{folder}{slash}{own}"
