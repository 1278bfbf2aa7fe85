"""The user's cache folder of weights, quantized models and training checkpoints."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """A folder below `$MASKSTREAM_CACHE`, else below `~/.cache/maskstream`; not created here."""
    chosen = os.environ.get("MASKSTREAM_CACHE")
    root = Path(chosen) if chosen else Path.home() / ".cache" / "maskstream"
    return root.joinpath(*parts)
