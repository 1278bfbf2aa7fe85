"""Outputs of a run: the mask store and, optionally, an overlay and a contact sheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipeline.addresses import is_url
from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.detectors.open import detector_hash
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.models.find import MEMORY, content_hash
from maskstream.pipeline.output_paths import PathLike, check_file, check_outputs
from maskstream.pipeline.prompts import NO_PROMPTS, Event, MaskEvent, PromptLog
from maskstream.pipeline.rendering.contact_sheet import ContactSheet
from maskstream.pipeline.rendering.overlay import OverlayVideo
from maskstream.pipeline.results.review import Reviewer
from maskstream.pipeline.runs.resume import JUMP, PART_MIN_S, RunSpec, check_same_run, new_names
from maskstream.pipeline.sources.identity import identity_of
from maskstream.pipeline.store import MaskStore, MaskStoreWriter, StoreMode, append_events, runs_of
from maskstream.pipeline.types import CoveredPart, Frame, FrameResult, Sink, SourceInfo

_LIBRARIES = ("maskstream", "numpy", "av", "opencv-python-headless", "openvino", "zarr")


@dataclass(frozen=True, slots=True)
class Origin:
    """A remote file of which the source is a copy: its URL, and its identity (`identity_of`)."""

    name: str
    identity: JsonObject


@dataclass(slots=True)
class RunOutputs:
    """Outputs of a run; `open` makes the sinks once the source is known.

    store: a path or a URL. mode: what to do with an existing store (`MaskStoreWriter`). span:
    requested part of the source (start, end, stride) and passes over it (backward: track objects to
    earlier frames; refine: blend masks between keyframes), JSON values (`requested_span`). prompts:
    kept as the store's events. origin: of a source that is a copy of a remote file.
    """

    store: Path | str
    overlay: Path | None = None
    contact: Path | None = None
    mode: StoreMode = "create"
    span: Mapping[str, Any] = field(default_factory=dict)
    prompts: PromptLog = NO_PROMPTS
    origin: Origin | None = None
    _writer: MaskStoreWriter | None = None

    def check(self, inputs: Iterable[PathLike]) -> None:
        """Check the paths before anything is read; inputs: the files that the run reads.

        Raises:
            ConfigError: an output would replace an input or another output.
            StoreExistsError: an overlay or contact sheet exists and `mode` is 'create'.
            StoreError: an overlay or contact sheet cannot be written.
        """
        check_outputs([self.store, self.overlay, self.contact], inputs)
        for what, path in (("overlay", self.overlay), ("contact sheet", self.contact)):
            if path is not None:
                check_file(path, what, replace=self.mode != "create")

    def open(self, pipeline: Pipeline, info: SourceInfo) -> Sequence[Sink]:
        """Make the sinks.

        Raises `StoreError`, also if the store to resume is of a different run; it is not changed.
        """
        sinks: list[Sink] = [self.open_store(pipeline, info)]
        if self.overlay is not None:
            sinks.append(OverlayVideo(self.overlay, info))
        if self.contact is not None:
            sinks.append(ContactSheet(self.contact))
        return sinks

    def open_store(self, pipeline: Pipeline, info: SourceInfo) -> ResumingSink:
        """Make the sink of the store alone. Raises as `open`."""
        wanted = self._run_spec(pipeline, info.name)
        stored = self._stored()
        events = wanted.events
        if stored is not None:
            check_same_run(stored, wanted)
            events = [*stored.events, *new_names(stored, wanted)]
        self._writer = MaskStoreWriter(
            self.store,
            info=info if self.origin is None else replace(info, name=self.origin.name),
            attributes=wanted.attributes,
            span=self.span,
            classes=pipeline.detector is not None,
            mode=self.mode,
            frames_per_commit=pipeline.config.store.commit_frames,
            seconds_per_commit=pipeline.config.store.commit_s,
        )
        try:
            self._writer.add_events(events)
            return ResumingSink(self._writer)
        except StoreError:
            self._writer.close(complete=False)
            raise

    def finished(self, pipeline: Pipeline, source: str) -> int | None:
        """Number of frames of the store if it is already complete for this run, else None.

        source: its path; with `origin` it need not exist. New names are added to the store.

        Raises `StoreError` if it cannot be read or is of a different run (`check_same_run`).
        """
        store = self._stored()
        if store is None:
            return None
        wanted = self._run_spec(pipeline, source)
        check_same_run(store, wanted)
        if not store.complete or store.span != self.span:
            return None
        append_events(self.store, new_names(store, wanted))
        return len(store)

    @property
    def scratch(self) -> Path | None:
        """Folder for temporary files beside a local store; None if there is none.

        It is on the same disk as the store, which needs the space anyway.
        """
        folder = Path(self.store).absolute().parent
        return folder if not is_url(str(self.store)) and folder.is_dir() else None

    def _stored(self) -> MaskStore | None:
        """The store to resume, if there is one."""
        return MaskStore.open_if_exists(self.store) if self.mode == "resume" else None

    def _run_spec(self, pipeline: Pipeline, source: str) -> RunSpec:
        attributes = attributes_of(pipeline, source)
        if self.origin is not None:
            source, attributes["identity"] = self.origin.name, self.origin.identity
        events = [event_to_json(event) for event in self.prompts.events]
        return RunSpec(source, self.span, events, attributes)

    @property
    def committed(self) -> int:
        """Number of frames committed to the store."""
        return 0 if self._writer is None else self._writer.committed_frames


class ResumingSink:
    """Sink that writes only frames that a resumed store does not have yet.

    On close it adds the review items of all frames to the store. Raises `StoreError`.
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
        """Write the result unless the store has its frame."""
        if frame.jump_s and result.index > self._after:
            self.note({"type": JUMP, "frame": frame.index, "seconds": round(frame.jump_s, 3)})
        self.append(result)

    def append(self, result: FrameResult) -> None:
        """As `write`, without the frame."""
        if result.index > self._after:
            self._store.append(result)
            self._reviewer.add(result)

    def note(self, event: Mapping[str, Any]) -> None:
        """Add an event unless the store has it."""
        if event not in self._store.events:
            self._store.add_events([*self._store.events, event])

    def idle(self) -> None:
        """Commit if it is due."""
        self._store.commit_due()

    def close(self, *, complete: bool) -> None:
        """Close the store."""
        items = [item.to_json() for item in self._reviewer.items()]
        self._store.close(complete=complete, review=items)


def requested_span(
    config: PipelineConfig,
    *,
    start: str | None = None,
    end: str | None = None,
    stride: int = 1,
    backward: bool = False,
    deinterlace: bool = False,
    part_min_s: float = 0.0,
) -> dict[str, str | int | float | bool | None]:
    """The part of a source to run and the passes over it, as a store keeps them.

    part_min_s: of a store that is joined of parts (`maskstream.pipeline.runs.parts`).
    """
    passes = {
        "backward": backward,
        "refine": config.refines,
        "deinterlace": deinterlace,
        PART_MIN_S: part_min_s,
    }
    span = {"start": start, "end": end, "stride": stride}
    return span | {name: wanted for name, wanted in passes.items() if wanted}


def attributes_of(pipeline: Pipeline, source: str) -> JsonObject:
    """Attributes of a store: identity of the source, model, configuration, versions."""
    config = pipeline.config
    return {
        "identity": identity_of(source),
        "model": {"name": Path(config.model).name, "hash": content_hash(pipeline.model)},
        "memory": content_hash(MEMORY),
        "config": config.model_dump(mode="json"),
        **detector_attributes(pipeline),
        "versions": {**library_versions()},
    }


def detector_attributes(pipeline: Pipeline) -> JsonObject:
    """The attribute `detector` of a run that has one: its name, and a hash of its files."""
    if pipeline.detector is None:
        return {}
    hashed = detector_hash(pipeline.config.detector)
    return {"detector": {"name": pipeline.detector.name, "hash": hashed}}


def event_to_json(event: Event) -> JsonObject:
    """Convert an event to JSON values; masks become start and length of their pixel runs."""
    if not isinstance(event, MaskEvent):
        return event.model_dump(mode="json")
    height, width = event.mask.shape
    runs = runs_of([CoveredPart(event.object, 0, 0, event.mask)], 0, (height, width))
    pairs = np.stack([runs["start"], runs["length"]], axis=1).tolist()
    values = event.model_dump(exclude={"mask"}, mode="json")
    return values | {"mask": {"size_hw": [height, width], "runs": pairs}}


def library_versions() -> dict[str, str]:
    """Versions of this package and of the libraries that determine its results."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
