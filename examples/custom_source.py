"""Track objects in frames of your own with timestamps (without them: `open_source(arrays)`).

    python examples/custom_source.py frames/

The folder holds RGB uint8 [H, W, 3] arrays, named by their time in milliseconds: 0.npy, 40.npy.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

import maskstream
from maskstream.pipeline.sources import ArrayView
from maskstream.pipeline.types import Frame, SourceInfo, SourceReport


class ArrayFolder:
    """Source and reader in one; nothing is read before `open`."""

    def __init__(self, folder: str) -> None:
        self.files = sorted((int(file.stem), file) for file in Path(folder).glob("*.npy"))
        self.report = SourceReport()

    @contextmanager
    def open(self) -> Iterator["ArrayFolder"]:
        """Called by the reader's thread; what has to be closed is closed after the yield."""
        self.info = SourceInfo("arrays", np.load(self.files[0][1]).shape[:2], Fraction(1, 1000))
        yield self

    def __iter__(self) -> Iterator[Frame]:
        for i, (pts, file) in enumerate(self.files):
            yield Frame(i, pts, self.info.time_base, self.info.size_hw, ArrayView(np.load(file)))


for result in maskstream.Pipeline.from_config().stream(ArrayFolder(sys.argv[1])):
    print(result.index, result.pts_s, [found.id for found in result.objects])
