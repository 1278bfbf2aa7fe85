"""Check whether a store can be resumed: the result must equal that of one run, bit for bit.

A resumed run computes every frame again and writes those that are missing. So everything that
determines masks must be the same as in the first run. Where no frame is missing, the threads and
the versions of libraries, which decide only the last bits, may be others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from maskstream.pipeline.config import RENAMED_KEYS
from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.sources.position import Position
from maskstream.pipeline.sources.timecode import Timecode
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.store.classes import CLASS

PART_MIN_S = "part_min_s"
"""Key of the span of a store that is joined of parts: seconds that a part has at least."""
_SPAN = ("start", "stride", "backward", "refine", "deinterlace", PART_MIN_S)
JUMP = "jump"
"""Type of the event that notes where a recording starts anew, as `Frame.jump_s`."""
# Keys that do not change the masks; the hashes of the model and the detector and the span's
# `refine` are compared instead of their names and of `tracking.refine`.
_IGNORED_KEYS = (
    "model",
    "tracking.refine",
    "threads.decode",
    "threads.opencv",
    "store.",
    "live.",
    "queue.capacity",
    "detector.model",
    "detector.detections",
    "detector.labels",
)
_IGNORED_LIBRARIES = ("zarr",)
_MAX_DIFFERENCES = 4  # maximum of differences in a message


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that determines a run's masks, JSON values.

    source: its name. span: the part of it, and the passes over it. events: the prompts and names.
    attributes: identity (`identity_of`) of the source, model, config, versions.
    """

    source: str
    span: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    attributes: Mapping[str, Any]


def check_same_run(store: MaskStore, wanted: RunSpec) -> None:
    """Raise `StoreError` with the differences unless a run would give the store's masks.

    A run may end later than the one before, but not before the store's last frame.
    """
    found = list(_differences(store, wanted))
    if found:
        shown = ", ".join(found[:_MAX_DIFFERENCES])
        more = f" and {len(found) - _MAX_DIFFERENCES} more" if len(found) > _MAX_DIFFERENCES else ""
        raise StoreError(
            f"The mask store {store.path} was started with {shown}{more}, so it cannot be resumed: "
            "the result would differ from that of one run. Give the same again, choose another "
            "output or give --overwrite."
        )
    end = wanted.span.get("end")
    if end is not None and end != store.span.get("end") and _reaches(store, Position.parse(end)):
        raise StoreError(
            f"The mask store {store.path} has frames up to {store.indices[-1]}, which is beyond "
            f"the end {end}: give a later end, choose another output or give --overwrite."
        )


def new_names(store: MaskStore, wanted: RunSpec) -> list[Mapping[str, Any]]:
    """The `rename` events of a run that the store does not have."""
    stored, given = _renames(store.events), _renames(wanted.events)
    if given[: len(stored)] == stored:
        return given[len(stored) :]
    return [event for event in given if event not in stored]


def _reaches(store: MaskStore, end: Position) -> bool:
    """Whether the store has frames at or after this end."""
    if not len(store):
        return False
    source = store.source
    end = end.resolved(source.rate, Timecode.parse(source.timecode or ""))
    if isinstance(end.value, int):
        return int(store.indices[-1]) >= end.value
    first, last = store.frame(0), store.frame(len(store) - 1)
    if first.pts is None:
        return end.reached_by(last, None)
    before_s = Fraction(first.index) / source.rate if source.rate else 0
    return end.reached_by(last, first.pts * first.time_base - before_s)


def _differences(store: MaskStore, wanted: RunSpec) -> Iterator[str]:
    for name in _SPAN:
        yield from _describe_difference(name, store.span.get(name), wanted.span.get(name))
    stored, given = store.attributes, wanted.attributes
    identities = stored.get("identity"), given.get("identity")
    if all(identities):
        if identities[0] != identities[1]:
            yield f"another source ({store.source.name} had other content than {wanted.source})"
    else:  # the store or the source has no identity
        yield from _describe_difference("source", store.source.name, wanted.source)
    yield from _describe_difference("model", _model(stored), _model(given))
    yield from _describe_difference("detector", _detector(stored), _detector(given))
    yield from _describe_difference("memory", stored.get("memory"), given.get("memory"))
    old, new = _flat(stored.get("config") or {}), _flat(given.get("config") or {})
    ignored: tuple[str, ...] = _IGNORED_KEYS
    if not (stored.get("detector") or given.get("detector")):
        ignored = (*_IGNORED_KEYS, "detector.")
    done = store.complete and store.span.get("end") == wanted.span.get("end")
    if done:
        ignored = (*ignored, "threads.inference")
    for key in sorted(old.keys() | new.keys()):
        if not key.startswith(ignored):
            yield from _describe_difference(key, old.get(key), new.get(key))
    if _prompts(store.events) != _prompts(wanted.events):
        yield "other prompts"
    if done:
        return
    old, new = stored.get("versions") or {}, given.get("versions") or {}
    for key in sorted(old.keys() | new.keys()):
        if key not in _IGNORED_LIBRARIES:
            yield from _describe_difference(key, old.get(key), new.get(key))


def _describe_difference(what: str, old: object, new: object) -> Iterator[str]:
    if old != new:
        yield f"{what} {old} (now {new})"


def _model(attributes: Mapping[str, Any]) -> str | None:
    model = attributes.get("model")
    return f"{model.get('name')} {model.get('hash')}" if isinstance(model, Mapping) else model


def _detector(attributes: Mapping[str, Any]) -> str | None:
    detector = attributes.get("detector")
    return f"{detector['name']} {detector['hash']}" if isinstance(detector, Mapping) else None


def _flat(config: Mapping[str, Any]) -> JsonObject:
    """Values by `section.key`; keys of earlier versions get their current names."""
    flat: JsonObject = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            names = {inner: f"{key}.{inner}" for inner in value}
            flat |= {RENAMED_KEYS.get(names[inner], names[inner]): value[inner] for inner in value}
        else:
            flat[key] = value
    return flat


def _prompts(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [event for event in events if event.get("type") not in ("rename", JUMP, CLASS)]


def _renames(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [event for event in events if event.get("type") == "rename"]
