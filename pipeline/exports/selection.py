"""Selection of objects and frames of a store for export."""

from __future__ import annotations

from bisect import bisect_left

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.exports.frames import ExportObject
from maskstream.pipeline.sources.position import FrameRange, Position
from maskstream.pipeline.sources.timecode import Timecode
from maskstream.pipeline.store import MaskStore


def choose_objects(store: MaskStore, wanted: str | None) -> tuple[ExportObject, ...]:
    """The objects with these ids, names or classes ("1,3,cup"), by id; None: all with pixels.

    Raises:
        ConfigError: an object is unknown.
    """
    known = {o.id: ExportObject(o.id, o.name, o.label) for o in store.objects()}
    if wanted is None:
        return tuple(known.values())
    chosen: dict[int, ExportObject] = {}
    for text in (part.strip() for part in wanted.split(",")):
        found = [o for o in known.values() if text and text in (str(o.id), o.name, o.label)]
        if not found:
            listed = ", ".join(
                f"{o.id} ({shown})" if (shown := o.name or o.label) else str(o.id)
                for o in known.values()
            )
            raise ConfigError(
                f"There is no object {text!r} in the mask store {store.path}; "
                f"it has {listed or 'none'}."
            )
        chosen |= {o.id: o for o in found}
    return tuple(chosen[i] for i in sorted(chosen))


def choose_rows(store: MaskStore, start: str | None, end: str | None) -> range:
    """Rows of the frames from `start` to `end` (exclusive), positions as in `run`.

    A time counts from the store's first frame.

    Raises:
        ConfigError: a position cannot be parsed or needs timestamps, or the span is empty.
    """
    first_timecode = Timecode.parse(store.source.timecode or "")
    wanted = FrameRange.of(start, end).resolved(store.source.rate, first_timecode)
    first = 0 if wanted.start is None else _row_of(store, wanted.start)
    stop = len(store) if wanted.end is None else _row_of(store, wanted.end)
    if first >= stop:
        span = f"from {wanted.start or 'its start'} to {wanted.end or 'its end'}"
        raise ConfigError(f"The mask store {store.path} has no frame {span}.")
    return range(first, stop)


def _row_of(store: MaskStore, position: Position) -> int:
    if isinstance(position.value, int):
        return int(store.indices.searchsorted(position.value))
    if not len(store):
        return 0
    first = store.frame(0)
    origin_s = None if first.pts is None else first.pts * first.time_base
    reached = range(len(store))
    return bisect_left(
        reached, True, key=lambda row: position.reached_by(store.frame(row), origin_s)
    )
