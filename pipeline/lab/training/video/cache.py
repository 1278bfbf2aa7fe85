"""Encoder features of training sequences on disk, so that the head trains without the encoder.

A chunk is a few sequences in one file; chunks are numbered from 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.lab.training.video.sequences import SIZE_HW, Sequence, SequenceSampler
from maskstream.pipeline.memory.features import NAMES, FrameFeatures
from maskstream.pipeline.models.find import find_model
from maskstream.pipeline.segmenter.model import OpenVinoSegmenter

WORK_HW = (SIZE_HW[0] // 2, SIZE_HW[1] // 2)  # size of label maps and of the flow's images
CHUNK = 4  # sequences of a file

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class FeatureMaker:
    """Encodes sequences with the embedded model, one thread."""

    segmenter: OpenVinoSegmenter
    flow: cv2.DISOpticalFlow

    @classmethod
    def open(cls, model: str = "lite") -> FeatureMaker:
        """With an embedded model, or a model folder."""
        segmenter = OpenVinoSegmenter(find_model(model), SIZE_HW, threads=1)
        return cls(segmenter, cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST))

    def __call__(self, sequence: Sequence) -> Arrays:
        """Feature maps float16 [T, C, h, w] by name, labels uint8 [T, H/2, W/2], flow float16
        [T, H/4, W/4, 2]: to where each cell was on the frame before, in cells; 0 on the first.
        """
        found = [FrameFeatures.of(self.segmenter.encode_rgb(f).tensors) for f in sequence.frames]
        arrays: Arrays = {
            name: np.stack([getattr(f, name) for f in found]).astype(np.float16) for name in NAMES
        }
        size = WORK_HW[::-1]
        arrays["labels"] = np.stack(
            [cv2.resize(m, size, interpolation=cv2.INTER_NEAREST) for m in sequence.labels]
        )
        grays = [
            cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
            for f in sequence.frames
        ]
        flows = [np.zeros((WORK_HW[0] // 2, WORK_HW[1] // 2, 2), np.float16)]
        for previous, present in pairwise(grays):
            back = self.flow.calc(present, previous, np.zeros((*WORK_HW, 2), np.float32))
            small = cv2.resize(back, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA)
            flows.append((small / 2).astype(np.float16))
        arrays["flow"] = np.stack(flows)
        return arrays


def write_chunk(file: Path, sequences: list[Arrays]) -> None:
    """Write a chunk; a kill leaves none or the whole."""
    write_arrays(file, {name: np.stack([s[name] for s in sequences]) for name in sequences[0]})


def write_arrays(file: Path, arrays: Arrays) -> None:
    """Write arrays as .npz; a kill leaves none or the whole."""
    part = file.with_suffix(".part")
    with part.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    os.replace(part, file)


def read_chunk(file: Path) -> Arrays:
    """Arrays of a file by name; of a chunk [CHUNK, T, ...]."""
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def chunks(folder: Path) -> list[Path]:
    """The chunks of a folder, oldest first."""
    return sorted(folder.glob("chunk-*.npz"))


def fill(
    folder: Path, sampler: SequenceSampler, maker: FeatureMaker, *, total: int
) -> Iterator[int]:
    """Write the chunks that are missing of `total`; yields the number of each that is written."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(chunks(folder)), total):
        sequences = [maker(sampler.draw(CHUNK * number + i)) for i in range(CHUNK)]
        write_chunk(folder / f"chunk-{number:06d}.npz", sequences)
        yield number
