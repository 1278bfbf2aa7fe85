"""Latency from a click to its mask on the page's server, without the browser."""

from __future__ import annotations

import gzip
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import PromptError
from maskstream.ui.editing.clicker import Segmenters
from maskstream.ui.editing.editor import Editor
from maskstream.ui.editing.entries import Click
from maskstream.ui.editing.images import shrink_labels
from maskstream.ui.editing.session import Session
from maskstream.ui.editing.slots import JobSlots

_LONGEST = 1920


@dataclass(frozen=True, slots=True)
class ClickReport:
    """Milliseconds from a click to the packed masks that the page shows.

    first: on a frame whose image is decoded but not encoded yet. again: on an encoded frame.
    preview: of a correction of a mask that covers the middle of the frame, until it is packed.
    """

    first_ms: tuple[float, ...]
    again_ms: tuple[float, ...]
    preview_ms: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Medians and 95th percentiles as JSON values."""
        kinds = {"first": self.first_ms, "again": self.again_ms, "preview": self.preview_ms}
        return {
            name: {
                "median_ms": round(float(np.median(times)), 1),
                "p95_ms": round(float(np.percentile(times, 95)), 1),
                "clicks": len(times),
            }
            for name, times in kinds.items()
        }


def bench_clicks(config: PipelineConfig, clip: Path, *, frames: int = 20) -> ClickReport:
    """Click three random points on each of `frames` frames. Raises `SourceError`, `ModelError`."""
    rng = np.random.default_rng(0)
    first: list[float] = []
    again: list[float] = []
    previews: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder), clip, clip.stem)
        editor = Editor(session, Segmenters(config), JobSlots())
        height, width = editor.info.size_hw
        _click(editor, 0, width / 2, height / 2)  # loads the network
        for frame in np.linspace(1, editor.frames[-1], frames).astype(int).tolist():
            editor.shown.image(frame, _LONGEST)
            for place in range(3):
                x, y = rng.uniform(0.2, 0.8, 2) * (width, height)
                taken = _click(editor, frame, float(x), float(y))
                (first if place == 0 else again).append(taken)
            previews.append(_preview(editor, frame))
        editor.close()
    return ClickReport(tuple(first), tuple(again), tuple(previews))


def _click(editor: Editor, frame: int, x: float, y: float) -> float:
    """Milliseconds of a click that starts a new object, even if no mask is found."""
    begun = time.perf_counter()
    with suppress(PromptError):
        editor.click(frame, Click(x=x, y=y, label=1), None)
    editor.shown.layers(frame, _LONGEST)
    taken = 1000 * (time.perf_counter() - begun)
    with suppress(PromptError):
        editor.undo()
    return taken


def _preview(editor: Editor, frame: int) -> float:
    """Milliseconds of the preview of a click beside a mask."""
    height, width = editor.info.size_hw
    middle = np.zeros((height, width), np.bool_)
    middle[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = True
    number = editor.brush(frame, middle, None, erase=False)
    begun = time.perf_counter()
    mask = editor.preview(frame, Click(x=width // 4, y=height // 2, label=1), number)
    if mask is not None:
        gzip.compress(shrink_labels(mask, _LONGEST).tobytes(), 1)
    taken = 1000 * (time.perf_counter() - begun)
    editor.undo()
    return taken
