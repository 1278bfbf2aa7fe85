"""`bench exports`: size and CPU time of a clip's export in each format."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.exports.edges import PLAIN, Edges
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.registry import FORMATS
from maskstream.pipeline.runs.outputs import RunOutputs
from maskstream.pipeline.sources import open_source
from maskstream.pipeline.store import MaskStore

_BACKGROUND = "blur"


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One export. kib, cpu_ms: per frame, with reading back. iou: the lowest, as read back."""

    format: str
    files: int
    kib: float
    cpu_ms: float
    iou: float


@dataclass(frozen=True, slots=True)
class ExportsReport:
    """All exports of one clip. excluded: formats whose dependencies are not installed."""

    video: str
    frames: int
    objects: int
    rows: Sequence[ExportRow]
    excluded: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def bench_exports(
    video: Path,
    frames: int = 20,
    formats: Sequence[str] = tuple(FORMATS),
    progress: Callable[[str], None] = lambda _: None,
) -> ExportsReport:
    """Seed and track objects on a clip's first frames, and export them in every format.

    Edges are soft if the format supports it; formats with a background blur it.

    Raises:
        SourceError: the video cannot be read. StoreError: the disk is full, or an export reads back
            differently.
    """
    rows, excluded = [], []
    with tempfile.TemporaryDirectory(prefix="maskstream-bench-") as folder:
        store = _store(video, frames, Path(folder) / "masks.zarr")
        objects = len(store.objects())
        for name in formats:
            progress(name)
            try:
                rows.append(_export(store, name, Path(folder)))
            except ConfigError as error:
                excluded.append(f"{name}: {error}")
    return ExportsReport(video.name, len(store), objects, rows, excluded)


def _store(video: Path, frames: int, place: Path) -> MaskStore:
    span = {"start": None, "end": str(frames), "stride": 1}
    pipeline, outputs = Pipeline.from_config(), RunOutputs(place, span=span)
    pipeline.run(open_source(video, end=frames), lambda info: outputs.open(pipeline, info))
    return MaskStore(place)


def _export(store: MaskStore, name: str, folder: Path) -> ExportRow:
    wanted = FORMATS[name]
    place = folder / f"{name}{wanted.suffix}"
    choice = ExportChoice(
        name,
        edges=Edges(soft=True) if wanted.takes_edges else PLAIN,
        background=_BACKGROUND if wanted.takes_background else None,
    )
    begun = time.process_time()
    summary = export_store(store, place, choice)
    cpu_s = time.process_time() - begun
    files = [place] if place.is_file() else [f for f in place.rglob("*") if f.is_file()]
    kib = sum(file.stat().st_size for file in files) / 1024
    return ExportRow(
        name, len(files), kib / len(store), 1000 * cpu_s / len(store), summary.worst_iou
    )
