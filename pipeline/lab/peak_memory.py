"""Peak memory of the running process."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_RESET_PEAK = "5"  # Linux, proc_pid_clear_refs(5)


@dataclass(slots=True)
class PeakMemory:
    """Peak resident memory of this process since the start of the measurement.

    Only Linux can reset the peak; elsewhere it is that since the process started.
    """

    _status: Path = field(default=Path("/proc/self/status"))

    def __post_init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)

    def read_mb(self) -> float:
        """MiB."""
        with suppress(OSError):
            lines = self._status.read_text().splitlines()
            peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
            if peaks:
                return peaks[0] / 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
