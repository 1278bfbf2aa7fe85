"""Read a mask store as NumPy, dask and xarray arrays.

    python examples/store_arrays.py clip.zarr

NumPy needs nothing more; dask (lazy, in parallel) and xarray (with timestamps as coordinates) are
used if they are installed: pip install dask xarray.
"""

import sys
from importlib.util import find_spec

import maskstream


def main(path: str) -> None:
    """Print each object's area, three ways."""
    with maskstream.MaskStore(path) as masks:
        areas: dict[int, list[int]] = {seen.id: [] for seen in masks.objects()}
        seconds = []
        for frame in masks:  # one at a time: any length of video
            seconds.append(frame.pts_s)
            for number, sizes in areas.items():
                sizes.append(int(frame.mask(number).sum()))
    print("numpy:", {number: max(sizes) for number, sizes in areas.items()})
    if not find_spec("dask"):
        return
    import dask.array

    labels = dask.array.from_zarr(path, component="labels")[: len(seconds)]  # nothing is read yet
    shown = {number: (labels == number).sum(axis=(1, 2)).max() for number in areas}
    print("dask:", {number: int(most.compute()) for number, most in shown.items()})
    if find_spec("xarray"):
        import xarray

        cube = xarray.DataArray(labels, dims=("time", "y", "x"), coords={"time": seconds})
        print("xarray:", (cube > 0).mean(("y", "x")).to_series())  # share of the frame, by time


if __name__ == "__main__":
    main(*sys.argv[1:])
