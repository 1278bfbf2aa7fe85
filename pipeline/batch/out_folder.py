"""The output folder of a batch: whether it can be written, and what time it is there."""

from __future__ import annotations

import math
from contextlib import suppress

from maskstream.pipeline.errors import StoreError
from maskstream.pipeline.store.open_place import open_place

_PROBE = ".maskstream-probe"


def check_out(out: str) -> float:
    """Write a file to an output folder, by path or URL, and remove it.

    Returns the time, seconds since 1970, by the clock of its disk or service; infinity if that is
    not known.

    Raises:
        StoreError: it cannot be written.
    """
    place = open_place(out)
    try:
        place.replace(_PROBE, b"probe")
    except OSError as error:
        raise StoreError(
            f"The output folder {place.name} cannot be written: {error.strerror or error}; give "
            "another one."
        ) from error
    now = math.inf
    with suppress(OSError):
        now = place.modified(_PROBE)
    with suppress(OSError):
        place.delete(_PROBE)
    return now
