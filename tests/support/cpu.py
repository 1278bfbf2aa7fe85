"""What the CPU computes exactly."""

from pathlib import Path


def int8_is_exact() -> bool:
    """Whether products of INT8 are summed in 32 bits (VNNI, AMX).

    Other x86 CPUs sum pairs in 16 bits, which saturate (`vpmaddubsw`), so that results are coarser.
    """
    file = Path("/proc/cpuinfo")
    flags = file.read_text() if file.exists() else ""
    return "vnni" in flags or "amx_int8" in flags or "avx2" not in flags
