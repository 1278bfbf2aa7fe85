"""`bench store`: sizes and times of the mask store, of other codecs and of a naive Zarr store."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import zarr
from numcodecs import blosc
from zarr.codecs import BloscCodec

from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.pipeline.store.layout import BLOCK_BYTES, LABELS, capped_threads
from maskstream.pipeline.types import FrameResult, LabelMap, ObjectResult, SizeHW, SourceInfo
from maskstream.trackers.state import TrackState

SIZES: Mapping[str, SizeHW] = {"720p": (720, 1280), "4K": (2160, 3840)}
OBJECTS = (1, 10, 100)
_DIFFERENT = 8  # label maps, written in turn
_READS = 32
_SHUFFLES = {blosc.NOSHUFFLE: "no", blosc.SHUFFLE: "bytes", blosc.BITSHUFFLE: "bits"}
_BLOCKS = {0: "auto", BLOCK_BYTES: f"{BLOCK_BYTES // 1024} KiB"}


@dataclass(frozen=True, slots=True)
class CodecRow:
    """One codec on the label maps of one scene; medians per frame."""

    scene: str
    codec: str
    shuffle: str
    block: str
    kib: float
    compress_ms: float
    decompress_ms: float


@dataclass(frozen=True, slots=True)
class StoreRow:
    """One store of one scene; medians per frame.

    write_cpu_ms: of the writing thread only; Zarr also uses other threads, so compare `write_ms`
    (wall time). worst_ms: the slowest frame, which completes a shard. read_ms: wall time of a
    random frame. kib: label maps and tables.
    """

    scene: str
    store: str
    kib: float
    write_cpu_ms: float
    write_ms: float
    worst_ms: float
    read_ms: float


@dataclass(frozen=True, slots=True)
class StoreReport:
    """All rows. ratios: write time of the naive store divided by the mask store's, by scene."""

    codecs: Sequence[CodecRow]
    stores: Sequence[StoreRow]
    ratios: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "codecs": [asdict(row) for row in self.codecs],
            "stores": [asdict(row) for row in self.stores],
            "ratios": dict(self.ratios),
        }


def bench_store(
    sizes: Mapping[str, SizeHW] = SIZES,
    objects: Sequence[int] = OBJECTS,
    frames: int = 128,
) -> StoreReport:
    """Write and read generated scenes of every size and number of objects."""
    codecs: list[CodecRow] = []
    stores: list[StoreRow] = []
    ratios = {}
    for name, size_hw in sizes.items():
        for count in objects:
            scene = f"{name}, {count}"
            results = [_result(i, size_hw, count) for i in range(_DIFFERENT)]
            codecs += _bench_codecs(scene, [r.labels for r in results])
            own, plain, naive = _bench_stores(scene, size_hw, results, frames)
            stores += [own, plain, naive]
            ratios[scene] = naive.write_ms / own.write_ms
    return StoreReport(codecs, stores, ratios)


def _bench_codecs(scene: str, maps: Sequence[LabelMap]) -> list[CodecRow]:
    rows = []
    for codec, level in (("lz4", 1), ("blosclz", 1), ("zstd", 1), ("zstd", 3)):
        for shuffle in _SHUFFLES:
            for block in _BLOCKS:
                packed, packing, unpacking = [], [], []
                for labels in maps:
                    begun = time.thread_time()
                    data = blosc.compress(labels, codec.encode(), level, shuffle, block)
                    packing.append(time.thread_time() - begun)
                    begun = time.thread_time()
                    blosc.decompress(data)
                    unpacking.append(time.thread_time() - begun)
                    packed.append(len(data))
                rows.append(
                    CodecRow(
                        scene,
                        f"{codec} {level}",
                        _SHUFFLES[shuffle],
                        _BLOCKS[block],
                        median(packed) / 1024,
                        1000 * median(packing),
                        1000 * median(unpacking),
                    )
                )
    return rows


def _bench_stores(
    scene: str, size_hw: SizeHW, results: Sequence[FrameResult], frames: int
) -> tuple[StoreRow, StoreRow, StoreRow]:
    """The mask store, plain Zarr reading it, and a naive store; writes are interleaved."""
    folder = Path(tempfile.mkdtemp(prefix="maskstream-bench-"))
    info = SourceInfo("generated", size_hw, results[0].time_base, Fraction(25))
    try:
        own, naive = _Times(), _Times()
        with MaskStoreWriter(folder / "own.zarr", info=info, attributes={}) as writer:
            array = _naive_array(folder / "naive.zarr", size_hw)
            for index in range(frames):
                result = results[index % len(results)]
                own.take(partial(writer.append, result))
                with capped_threads():
                    naive.take(partial(array.append, result.labels[None]))
        order = np.random.default_rng(0).permutation(frames)[:_READS].tolist()
        masks = MaskStore(folder / "own.zarr")
        plain = zarr.open_array(folder / "own.zarr", path=LABELS, mode="r")
        with capped_threads():
            reads = [
                _read_ms(lambda row: masks.frame(row).labels, order, results),
                _read_ms(lambda row: plain[row], order, results),
                _read_ms(lambda row: array[row], order, results),
            ]
        kib = [_kib(folder / name) / frames for name in ("own.zarr", "own.zarr", "naive.zarr")]
        rows = (
            StoreRow(scene, store, size, times.cpu_ms, times.wall_ms, times.worst_ms, read)
            for store, size, times, read in zip(
                ("maskstream", "maskstream, read by zarr", "chunk per frame"),
                kib,
                (own, own, naive),
                reads,
                strict=True,
            )
        )
        first, second, third = rows
        return first, second, third
    finally:
        shutil.rmtree(folder)


class _Times:
    """CPU time of this thread and wall time of calls, seconds."""

    def __init__(self) -> None:
        self._cpu: list[float] = []
        self._wall: list[float] = []

    def take(self, call: Callable[[], object]) -> None:
        cpu, wall = time.thread_time(), time.perf_counter()
        call()
        self._cpu.append(time.thread_time() - cpu)
        self._wall.append(time.perf_counter() - wall)

    @property
    def cpu_ms(self) -> float:
        return 1000 * median(self._cpu)

    @property
    def wall_ms(self) -> float:
        return 1000 * median(self._wall)

    @property
    def worst_ms(self) -> float:
        return 1000 * max(self._wall)


def _read_ms(
    read: Callable[[int], Any], order: Sequence[int], results: Sequence[FrameResult]
) -> float:
    times = []
    for row in order:
        begun = time.perf_counter()
        labels = read(row)
        times.append(time.perf_counter() - begun)
        if not np.array_equal(labels, results[row % len(results)].labels):
            raise AssertionError(f"frame {row} does not read back")
    return 1000 * median(times)


def _naive_array(path: Path, size_hw: SizeHW) -> zarr.Array[Any]:
    """A naive Zarr array: one chunk per frame, appended."""
    return zarr.create_array(
        path,
        shape=(0, *size_hw),
        chunks=(1, *size_hw),
        dtype="uint16",
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="noshuffle", typesize=2),
    )


def _kib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1024


def _result(index: int, size_hw: SizeHW, count: int) -> FrameResult:
    """A frame of `count` moving blobs with wavy, noisy borders, like those of masks."""
    height, width = size_hw
    rng = np.random.default_rng(0)
    labels = np.zeros(size_hw, np.uint16)
    objects = []
    angles = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    for object_id in range(1, count + 1):
        center = rng.uniform(0.05, 0.95, 2) * (width, height) + 4 * index * rng.uniform(-1, 1, 2)
        radius = rng.uniform(0.5, 1.2) * height * 0.3 / count**0.4
        phase = rng.uniform(0, 6)
        waves = 1 + 0.25 * np.sin(3 * angles + phase) + 0.1 * np.sin(11 * angles)
        waves += 0.02 * rng.standard_normal(len(angles))
        outline = center + (radius * waves)[:, None] * np.stack(
            [np.cos(angles), np.sin(angles)], axis=1
        )
        cv2.fillPoly(labels, [outline.astype(np.int32)], object_id)
        box = (0.0, 0.0, float(width), float(height))
        objects.append(ObjectResult(object_id, box, 0.9, TrackState.TRACKED, 1))
    return FrameResult(index, 40 * index, Fraction(1, 1000), index == 0, labels, tuple(objects))
