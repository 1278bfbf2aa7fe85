"""Import OpenVINO without telemetry; all modules of this package import it from here.

OpenVINO and NNCF send usage data with a user id over the network if they can import the package
`openvino_telemetry`. That package is blocked while they are imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TELEMETRY = "openvino_telemetry"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Block imports of the telemetry package within the context."""
    found = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if found is not None:
            sys.modules[_TELEMETRY] = found


with without_telemetry():
    import openvino as ov
    from openvino import opset13 as opset
    from openvino.frontend import (
        FrontEndManager,
        GeneralFailure,
        InitializationFailure,
        NotImplementedFailure,
        OpConversionFailure,
        OpValidationFailure,
    )

__all__ = ["cpu_options", "opset", "ov", "read_graph", "reason", "without_telemetry"]


_FAILURES = (
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
)  # of the frontends, which share no class


def reason(error: RuntimeError) -> str:
    """What an error of OpenVINO says: its last line, after the places in its own code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def read_graph(file: Path) -> ov.Model:
    """Read a user's graph, .onnx or .xml, as what its suffix says. Raises `RuntimeError`.

    `Core.read_model` tries other formats on a damaged file, and their parsers write to stderr.
    """
    frontend = FrontEndManager().load_by_framework(
        "ir" if file.suffix.lower() == ".xml" else "onnx"
    )
    try:
        graph = frontend.convert(frontend.load(str(file)))
    except _FAILURES as error:
        raise RuntimeError(str(error)) from error
    if not graph.outputs:
        raise RuntimeError("It holds no network")
    return graph


def cpu_options(threads: int) -> dict[str, str | int | bool]:
    """Options of graphs compiled for the CPU, which run on `threads` threads."""
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # graphs of several threads run concurrently
    }
