"""Mask store: label map and objects of every frame in Zarr, crash-safe appends, random access."""

from maskstream.pipeline.store.check import CheckReport, check_store, repair_store
from maskstream.pipeline.store.covered import runs_of
from maskstream.pipeline.store.events import append_events
from maskstream.pipeline.store.reader import FrameObjects, MaskStore
from maskstream.pipeline.store.summary import ObjectSummary
from maskstream.pipeline.store.writer import MaskStoreWriter, StoreMode, check_writable

__all__ = [
    "CheckReport",
    "FrameObjects",
    "MaskStore",
    "MaskStoreWriter",
    "ObjectSummary",
    "StoreMode",
    "append_events",
    "check_store",
    "check_writable",
    "repair_store",
    "runs_of",
]
