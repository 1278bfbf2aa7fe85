"""The outputs of a run: the mask store and, if wanted, the overlay and the contact sheet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine import Pipeline
from pipeline.errors import StoreError
from pipeline.preview import ContactSheet, OverlayVideo
from pipeline.prompts import NO_PROMPTS, Event, MaskEvent, PromptLog
from pipeline.segmenter.model import content_hash
from pipeline.store import MaskStore, MaskStoreWriter, StoreMode, runs_of
from pipeline.types import Frame, FrameResult, HiddenPart, Sink, SourceInfo

_LIBRARIES = ("maskstream", "numpy", "av", "opencv-python-headless", "openvino", "zarr")
_IDENTITY_BYTES = 1 << 20  # of each end of a file
_KEPT_ON_RESUME = {"identity": "another file under the same name", "model": "another model"}


@dataclass(slots=True)
class Outputs:
    """Where a run writes; `open` makes the sinks once the source is known.

    store: a path or a URL. mode: what to do with a store that is there already
    (`MaskStoreWriter`). span: which part of the source was asked for (start, end, stride), as JSON
    values. prompts: what was asked for, kept as the store's events.
    """

    store: Path | str
    overlay: Path | None = None
    contact: Path | None = None
    mode: StoreMode = "create"
    span: Mapping[str, Any] = field(default_factory=dict)
    prompts: PromptLog = NO_PROMPTS
    _writer: MaskStoreWriter | None = None

    def open(self, pipeline: Pipeline, info: SourceInfo) -> Sequence[Sink]:
        """Make the sinks. Raises `StoreError`."""
        config = pipeline.config
        attributes = {
            "identity": identity_of(Path(info.name)),
            "model": {"name": Path(config.model).name, "hash": content_hash(pipeline.model)},
            "config": config.model_dump(mode="json"),
            "versions": library_versions(),
        }
        self._writer = MaskStoreWriter(
            self.store,
            info=info,
            attributes=attributes,
            span=self.span,
            mode=self.mode,
            frames_per_commit=config.store.commit_frames,
            seconds_per_commit=config.store.commit_s,
        )
        try:
            self._check_same(self._writer.attributes, attributes)
            self._writer.add_events([_event_to_json(event) for event in self.prompts.events])
        except StoreError:
            self._writer.close(complete=False)
            raise
        sinks: list[Sink] = [OnlyMissing(self._writer)]
        if self.overlay is not None:
            sinks.append(OverlayVideo(self.overlay, info))
        if self.contact is not None:
            sinks.append(ContactSheet(self.contact))
        return sinks

    def finished(self) -> int | None:
        """Frames of the store if it is complete for this span already, else None.

        Raises `StoreError` if it cannot be read, or was begun with another start or stride.
        """
        if self.mode != "resume":
            return None
        store = MaskStore.if_there(self.store)
        if store is None:
            return None
        for name in ("start", "stride"):
            if store.span.get(name) != self.span.get(name):
                raise StoreError(
                    f"The mask store {self.store} was begun with {name} {store.span.get(name)}, "
                    f"not {self.span.get(name)}, so it cannot be resumed; give the same, choose "
                    "another output or give --overwrite."
                )
        return len(store) if store.complete and store.span == self.span else None

    def _check_same(self, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        for name, what in _KEPT_ON_RESUME.items():
            if stored.get(name) != given[name]:
                raise StoreError(
                    f"The mask store {self.store} was made from {what}, so it cannot be resumed; "
                    "choose another output or give --overwrite."
                )

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


def identity_of(source: Path) -> dict[str, Any] | None:
    """Size in bytes of a file and SHA-256 of its first and last MiB; None if it is none."""
    if not source.is_file():
        return None
    with source.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        ends = file.read(_IDENTITY_BYTES)
        file.seek(max(file.tell(), size - _IDENTITY_BYTES))
        ends += file.read()
    return {"bytes": size, "sha256_of_ends": hashlib.sha256(ends).hexdigest()}


def _event_to_json(event: Event) -> dict[str, Any]:
    """A prompt as JSON values; a mask as start and length of its runs along rows."""
    if not isinstance(event, MaskEvent):
        return event.model_dump(mode="json")
    height, width = event.mask.shape
    runs = runs_of([HiddenPart(event.object, 0, 0, event.mask)], 0, (height, width))
    pairs = np.stack([runs["start"], runs["length"]], axis=1).tolist()
    values = event.model_dump(exclude={"mask"}, mode="json")
    return values | {"mask": {"size_hw": [height, width], "runs": pairs}}


def library_versions() -> dict[str, str]:
    """Versions of this package and of what determines its results."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
