"""From a path or a URL to the place where a store lives."""

from __future__ import annotations

from pathlib import Path

from maskstream.pipeline.store.place import LocalPlace, Place


def open_place(path: Path | str) -> Place:
    """The place that a path or a URL (`s3://bucket/clip.zarr`) names; nothing is opened yet.

    Raises:
        StoreError: what the URL needs is not installed.
    """
    if "://" not in str(path):
        return LocalPlace(Path(path))
    from maskstream.pipeline.store.remote import RemotePlace

    return RemotePlace(str(path))
