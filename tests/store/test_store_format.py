"""The format as others see it: plain Zarr, OME-Zarr's metadata, files on disk."""

import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from tests.support.stores import INFO, SIZE, abandon, expected, files, write


def test_plain_zarr_reads_every_array(tmp_path):
    path = tmp_path / "o.zarr"
    write(path, range(150))
    group = zarr.open_group(path, mode="r")
    labels = group["labels"]
    assert (labels.shape, labels.dtype) == ((150, *SIZE), np.uint16)
    assert (labels.shards, labels.chunks) == ((64, *SIZE), (1, *SIZE))
    assert np.array_equal(labels[:], np.stack([expected(i).labels for i in range(150)]))
    assert group["frames/index"][:].tolist() == list(range(150))
    assert group["frames/pts"][:].tolist() == [40 * i for i in range(150)]
    rows = [(i, o) for i in range(150) for o in expected(i).objects]
    assert group["objects/frame"][:].tolist() == [i for i, _ in rows]
    assert group["objects/id"][:].tolist() == [o.id for _, o in rows]
    assert group["objects/box_xyxy"][:].tolist() == [list(o.box_xyxy) for _, o in rows]
    assert group["objects/score"][:].tolist() == [o.score for _, o in rows]
    assert group["objects/state"][:].tolist() == [o.state for _, o in rows]
    assert group["objects/area"][:].tolist() == [o.area for _, o in rows]
    assert set(group["hidden/id"][:].tolist()) == {1}
    assert int(group["hidden/length"][:].sum()) == sum(
        int(p.mask.sum()) for i in range(150) for p in expected(i).covered
    )
    assert {name for name, _ in group.members()} == {"labels", "frames", "objects", "hidden"}


def test_plain_zarr_reads_the_finished_shards_of_a_store_at_work(tmp_path):
    abandon(tmp_path / "o.zarr", range(130))
    labels = zarr.open_group(tmp_path / "o.zarr", mode="r")["labels"]
    assert labels.shape[0] == 128
    assert np.array_equal(labels[127], expected(127).labels)


def test_dask_opens_the_labels_without_reading_them(tmp_path):
    """The lines that README shows; a view of dask's is one of xarray's, too."""
    dask_array = pytest.importorskip("dask.array")
    write(tmp_path / "o.zarr", range(130))
    lazy = dask_array.from_zarr(str(tmp_path / "o.zarr"), component="labels")
    assert (lazy.shape, lazy.dtype) == ((130, *SIZE), np.uint16)
    first = tmp_path / "o.zarr" / "labels" / "c.0.0.0"
    first.rename(tmp_path / "away")
    assert np.array_equal(lazy[129].compute(), expected(129).labels)  # only its own shard is read
    (tmp_path / "away").rename(first)
    areas = (lazy == 1).sum(axis=(1, 2)).compute(scheduler="threads")
    assert areas.tolist() == [int((expected(i).labels == 1).sum()) for i in range(130)]


def test_a_frame_is_read_without_its_neighbors(tmp_path):
    """Its shard's index and its own record: of 64 frames of 80 KB, little more than one."""
    size_hw, rng = (200, 200), np.random.default_rng(0)
    info = replace(INFO, size_hw=size_hw)
    with MaskStoreWriter(tmp_path / "o.zarr", info=info, attributes={}) as store:
        for index in range(128):
            labels = rng.integers(0, 1 << 16, size_hw, np.uint16)
            store.append(replace(expected(index), labels=labels, objects=(), covered=()))
    masks = MaskStore(tmp_path / "o.zarr")
    masks.frame(0)  # imports what it needs
    for row in (3, 100, 64):
        begun = bytes_read()
        masks.frame(row)
        assert bytes_read() - begun < 1.2 * labels.nbytes


def bytes_read() -> int:
    """Bytes that this process has read from files."""
    counts = Path("/proc/self/io")
    if not counts.exists():
        pytest.skip("this system does not count what a process reads")
    return int(counts.read_text().split()[1])


def test_store_is_few_files(tmp_path):
    write(tmp_path / "o.zarr", range(150))
    names = [name for name in files(tmp_path / "o.zarr") if name.startswith("labels/")]
    assert names == ["labels/c.0.0.0", "labels/c.1.0.0", "labels/c.2.0.0", "labels/zarr.json"]


def test_root_is_an_ome_zarr_image(tmp_path):
    """As `ome-zarr` 0.18 reads it; docs/reference/store.md says who trips over the array's name."""
    write(tmp_path / "o.zarr", range(3))
    group = zarr.open_group(tmp_path / "o.zarr", mode="r")
    ome = group.attrs["ome"]
    (image,) = ome["multiscales"]
    assert ome["version"] == "0.5"
    assert image["name"] == INFO.name
    assert tuple(axis["name"] for axis in image["axes"]) == ("t", "y", "x")
    (dataset,) = image["datasets"]
    array = group[dataset["path"]]
    assert array.metadata.dimension_names == ("t", "y", "x")
    (scale,) = dataset["coordinateTransformations"]
    assert len(scale["scale"]) == array.ndim


_LONG_STORE = """
import sys
from tests.support.stores import expected, writer
from tests.store.test_store_format import peak_mb
store = writer(sys.argv[1])
for index in range(5120):
    store.append(expected(index))
    if index in (1280, 5119):
        print(peak_mb())
store.close(complete=True)
from maskstream.pipeline.store import MaskStore
for result in MaskStore(sys.argv[1]):
    pass
print(peak_mb())
"""


def test_memory_grows_neither_with_writing_nor_with_reading(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", _LONG_STORE, str(tmp_path / "o.zarr")],
        capture_output=True,
        text=True,
        check=True,
    )
    early, late, read = map(float, ran.stdout.split())
    assert late - early < 5
    assert read - late < 5


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
