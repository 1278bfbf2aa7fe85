"""Whether a store can be gone on with: it must end as one run's would, bit for bit.

A resumed run computes every frame anew and writes those that are missing. So whatever decides
masks must be what it was when the store was begun.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskstream.pipeline.config import RENAMED_KEYS
from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.store import MaskStore

_SPAN = ("start", "stride", "backward", "refine")
# They decide how fast masks come and when they are safe, not what they are; the model's hash and
# the span's `refine` are compared in the place of the keys.
_INDIFFERENT = (
    "model",
    "tracking.refine",
    "threads.decode",
    "threads.opencv",
    "store.",
    "live.",
    "queue.capacity",
)
_INDIFFERENT_LIBRARIES = ("zarr",)
_LONGEST = 4  # differences that are told


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run's masks follow from, in JSON values.

    source: its name. span: the part of it, and the passes over it. events: the prompts and names.
    attributes: identity (`identity_of`) of the source, model, config, versions.
    """

    source: str
    span: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    attributes: Mapping[str, Any]


def check_same_run(store: MaskStore, asked: RunSpec) -> None:
    """Raise `StoreError` that says what differs unless the masks would be the store's own."""
    found = list(_differences(store, asked))
    if found:
        more = f" and {len(found) - _LONGEST} more" if len(found) > _LONGEST else ""
        raise StoreError(
            f"The mask store {store.path} was begun with {', '.join(found[:_LONGEST])}{more}, so "
            "it cannot be resumed: it would not hold what one run makes. Give the same again, "
            "choose another output or give --overwrite."
        )


def new_names(store: MaskStore, asked: RunSpec) -> list[Mapping[str, Any]]:
    """Those `rename` events of what is asked for that the store does not have."""
    there, wanted = _renames(store.events), _renames(asked.events)
    if wanted[: len(there)] == there:
        return wanted[len(there) :]
    return [event for event in wanted if event not in there]


def _differences(store: MaskStore, asked: RunSpec) -> Iterator[str]:
    for name in _SPAN:
        yield from _describe_difference(name, store.span.get(name), asked.span.get(name))
    stored, given = store.attributes, asked.attributes
    identities = stored.get("identity"), given.get("identity")
    if all(identities):
        if identities[0] != identities[1]:
            yield f"another source ({store.source.name} had other content than {asked.source} has)"
    else:  # a store of before there were identities, or a source that has none
        yield from _describe_difference("source", store.source.name, asked.source)
    yield from _describe_difference("model", _model(stored), _model(given))
    old, new = _flat(stored.get("config") or {}), _flat(given.get("config") or {})
    for key in sorted(old.keys() | new.keys()):
        if not key.startswith(_INDIFFERENT):
            yield from _describe_difference(key, old.get(key), new.get(key))
    old, new = stored.get("versions") or {}, given.get("versions") or {}
    for key in sorted(old.keys() | new.keys()):
        if key not in _INDIFFERENT_LIBRARIES:
            yield from _describe_difference(key, old.get(key), new.get(key))
    if _prompts(store.events) != _prompts(asked.events):
        yield "other prompts"


def _describe_difference(what: str, old: object, new: object) -> Iterator[str]:
    if old != new:
        yield f"{what} {old} (now {new})"


def _model(attributes: Mapping[str, Any]) -> str | None:
    model = attributes.get("model")
    return f"{model.get('name')} {model.get('hash')}" if isinstance(model, Mapping) else model


def _flat(config: Mapping[str, Any]) -> JsonObject:
    """Values by `section.key`; keys that an earlier version wrote have their present names."""
    flat: JsonObject = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            names = {inner: f"{key}.{inner}" for inner in value}
            flat |= {RENAMED_KEYS.get(names[inner], names[inner]): value[inner] for inner in value}
        else:
            flat[key] = value
    return flat


def _prompts(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [event for event in events if event.get("type") != "rename"]


def _renames(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [event for event in events if event.get("type") == "rename"]
