"""Choose where a store is, by path or URL."""

from __future__ import annotations

from pathlib import Path

from maskstream.pipeline.addresses import is_url
from maskstream.pipeline.store.place import LocalPlace, Place


def open_place(path: Path | str) -> Place:
    """Make the `Place` of a path or a URL (`s3://bucket/clip.zarr`); nothing is opened yet.

    Raises:
        StoreError: a package that the URL needs is not installed.
    """
    if not is_url(str(path)):
        return LocalPlace(Path(path))
    from maskstream.pipeline.store.remote import RemotePlace

    return RemotePlace(str(path))
