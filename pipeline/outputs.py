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
from pipeline.review import Reviewer
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
    (`MaskStoreWriter`). span: which part of the source was asked for (start, end, stride; backward
    if objects are followed to earlier frames too; refine if masks are blended from both keyframes
    around them), as JSON values. prompts: what was asked for, kept as the store's events.
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
        attributes = attributes_of(pipeline, info)
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
            self._writer.add_events(self._events())
            sinks: list[Sink] = [OnlyMissing(self._writer)]
        except StoreError:
            self._writer.close(complete=False)
            raise
        if self.overlay is not None:
            sinks.append(OverlayVideo(self.overlay, info))
        if self.contact is not None:
            sinks.append(ContactSheet(self.contact))
        return sinks

    def finished(self) -> int | None:
        """Frames of the store if it is complete for this span already, else None.

        Raises `StoreError` if it cannot be read, or was begun with another start, stride or choice
        of backward or refine, or with other prompts where backward was chosen.
        """
        if self.mode != "resume":
            return None
        store = MaskStore.if_there(self.store)
        if store is None:
            return None
        for name in ("start", "stride", "backward", "refine"):
            if store.span.get(name) != self.span.get(name):
                raise StoreError(
                    f"The mask store {self.store} was begun with {name} {store.span.get(name)}, "
                    f"not {self.span.get(name)}, so it cannot be resumed; give the same, choose "
                    "another output or give --overwrite."
                )
        if self.span.get("backward") and len(store) and list(store.events) != self._events():
            raise StoreError(
                f"The mask store {self.store} was begun with other prompts, and --backward follows "
                "new ones to frames that it holds already; choose another output or give "
                "--overwrite."
            )
        return len(store) if store.complete and store.span == self.span else None

    @property
    def scratch(self) -> Path | None:
        """The folder beside a local store, None if it is not there yet or the store is not local.

        There is room where the store has room.
        """
        folder = Path(self.store).absolute().parent
        return folder if "://" not in str(self.store) and folder.is_dir() else None

    def _events(self) -> list[dict[str, Any]]:
        return [event_to_json(event) for event in self.prompts.events]

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
    """Passes to a resumed store only the frames that it does not hold yet.

    When it is closed, the store is told what of all its frames a person should look at. Raises
    `StoreError`.
    """

    def __init__(self, store: MaskStoreWriter) -> None:
        self._store = store
        self._reviewer = Reviewer()
        last = store.last_committed_index
        self._after = -1 if last is None else last
        if last is not None:
            for frame in MaskStore(store.path).frame_objects():
                self._reviewer.add(frame)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Write the result unless its frame is there."""
        if result.index > self._after:
            self._store.write(frame, result)
            self._reviewer.add(result)

    def close(self, *, complete: bool) -> None:
        """Close the store."""
        doubts = [doubt.to_json() for doubt in self._reviewer.doubts()]
        self._store.close(complete=complete, review=doubts)


def attributes_of(pipeline: Pipeline, info: SourceInfo) -> dict[str, Any]:
    """What a store keeps of how it was made: source, model, configuration, versions."""
    config = pipeline.config
    return {
        "identity": identity_of(Path(info.name)),
        "model": {"name": Path(config.model).name, "hash": content_hash(pipeline.model)},
        "config": config.model_dump(mode="json"),
        "versions": library_versions(),
    }


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


def event_to_json(event: Event) -> dict[str, Any]:
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
