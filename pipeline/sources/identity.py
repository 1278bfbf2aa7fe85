"""Identity of a source by its contents, independent of its path."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

from maskstream.pipeline.errors import MaskstreamError
from maskstream.pipeline.sources.images import ImageSequence

_END_BYTES = 1 << 20  # of each end of a file


def identity_of(source: Path | str) -> dict[str, Any] | None:
    """Size in bytes of a file and SHA-256 of its first and last MiB, as JSON values.

    Of a folder or pattern of images: their number, total size, and the hash of the ends of the
    first and the last image. None if there is no such file. The time does not depend on the length.
    """
    path = Path(source)
    try:
        if path.is_file():
            return _identity([path])
        images = [file.path for file in ImageSequence(path).files()]
        return {"files": len(images)} | _identity(images)
    except (MaskstreamError, OSError):
        return None


def identity_of_opened(file: BinaryIO) -> dict[str, Any]:
    """Identity of one file that is opened, wherever it is; as `identity_of` of its path.

    Raises `OSError`.
    """
    digest = hashlib.sha256()
    return {"bytes": _add_ends(file, digest), "sha256_of_ends": digest.hexdigest()}


def _identity(files: list[Path]) -> dict[str, Any]:
    digest = hashlib.sha256()
    sizes = [file.stat().st_size for file in files]
    if len(files) > 1:
        digest.update(repr(sizes).encode())
    for file in dict.fromkeys((files[0], files[-1])):
        with file.open("rb") as opened:
            _add_ends(opened, digest)
    return {"bytes": sum(sizes), "sha256_of_ends": digest.hexdigest()}


def _add_ends(file: BinaryIO, digest: hashlib._Hash) -> int:
    """Add the first and the last MiB of a file to a digest; returns its size in bytes."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    digest.update(file.read(_END_BYTES))
    file.seek(max(file.tell(), size - _END_BYTES))
    digest.update(file.read(_END_BYTES))
    return size
