"""Mask store: every frame's label map and objects on disk, appended safely, read at random."""

from pipeline.store.reader import MaskStore, ObjectSummary
from pipeline.store.writer import MaskStoreWriter, StoreMode

__all__ = ["MaskStore", "MaskStoreWriter", "ObjectSummary", "StoreMode"]
