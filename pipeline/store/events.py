"""Append events to an existing store without a run, for example names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.store.header import read_header, write_header
from maskstream.pipeline.store.open_place import open_place
from maskstream.pipeline.store.writer import MaskStoreWriter


def append_events(path: Path | str, events: Sequence[Mapping[str, Any]]) -> None:
    """Append events, JSON objects, to a store that no run is writing.

    For events that change no mask (`rename`). A complete store keeps its other contents, including
    the review.

    Raises:
        StoreLockedError: it is being written.
        StoreCorruptError: the store is damaged.
        StoreError: there is no mask store, or it cannot be written.
    """
    if not events:
        return
    place = open_place(path)
    header = read_header(place)
    if not header.complete:  # some events may be in the journal
        writer = MaskStoreWriter(
            path, info=header.source, attributes={}, span=header.span, mode="resume"
        )
        try:
            writer.add_events([*writer.events, *events])
        finally:
            writer.close(complete=False)
        return
    try:
        lock = place.lock()
        try:
            header = read_header(place)
            write_header(place, replace(header, events=[*header.events, *events]))
        finally:
            lock.release()
    except OSError as error:
        raise StoreError(
            f"The mask store {place.name} cannot be written: {error.strerror or error}."
        ) from error
