"""OpenVINO, imported so that it reports nothing; every module of this package takes it from here.

OpenVINO and NNCF report over the network what is done with them, unasked, and keep a number of
their user's. They do so with the package `openvino_telemetry`, if they find it when they are
imported: for that long it is hidden. Nothing else of the process is changed by it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_REPORTER = "openvino_telemetry"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Hide the package that reports from what is imported within."""
    found = sys.modules.get(_REPORTER)
    sys.modules[_REPORTER] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_REPORTER]
        if found is not None:
            sys.modules[_REPORTER] = found


with without_telemetry():
    import openvino as ov
    from openvino import opset13 as opset

__all__ = ["opset", "ov", "without_telemetry"]
