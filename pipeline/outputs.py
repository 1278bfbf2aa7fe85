"""The outputs of a run: the mask store and, if wanted, the overlay and the contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.engine import Pipeline
from pipeline.preview import ContactSheet, OverlayVideo
from pipeline.segmenter.model import content_hash
from pipeline.store import MaskStoreWriter, StoreMode
from pipeline.types import Frame, FrameResult, Sink, SourceInfo

_LIBRARIES = ("maskstream", "numpy", "av", "opencv-python-headless", "openvino", "zarr")


@dataclass(slots=True)
class Outputs:
    """Where a run writes; `open` makes the sinks once the source is known.

    mode: what to do with a store that is there already (`MaskStoreWriter`).
    """

    store: Path
    overlay: Path | None = None
    contact: Path | None = None
    mode: StoreMode = "create"
    _writer: MaskStoreWriter | None = None

    def open(self, pipeline: Pipeline, info: SourceInfo) -> Sequence[Sink]:
        """Make the sinks. Raises `StoreError`."""
        config = pipeline.config
        self._writer = MaskStoreWriter(
            self.store,
            info=info,
            attributes={
                "model": {"name": Path(config.model).name, "hash": content_hash(pipeline.model)},
                "config": config.model_dump(mode="json"),
                "versions": library_versions(),
            },
            mode=self.mode,
            frames_per_commit=config.store.commit_frames,
            seconds_per_commit=config.store.commit_s,
        )
        sinks: list[Sink] = [OnlyMissing(self._writer)]
        if self.overlay is not None:
            sinks.append(OverlayVideo(self.overlay, info))
        if self.contact is not None:
            sinks.append(ContactSheet(self.contact))
        return sinks

    @property
    def committed(self) -> int:
        """Frames that are safe in the store."""
        return 0 if self._writer is None else self._writer.committed_frames


class OnlyMissing:
    """Passes to a resumed store only the frames that it does not hold yet."""

    def __init__(self, store: MaskStoreWriter) -> None:
        self._store = store
        last = store.last_committed_index
        self._after = -1 if last is None else last

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Write the result unless its frame is there."""
        if result.index > self._after:
            self._store.write(frame, result)

    def close(self, *, complete: bool) -> None:
        """Close the store."""
        self._store.close(complete=complete)


def library_versions() -> dict[str, str]:
    """Versions of this package and of what determines its results."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
