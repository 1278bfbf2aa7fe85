"""`bench models`: encoder and decoder times of torch and OpenVINO, taken in turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from pipeline.bench.fill import filled_model
from pipeline.bench.folders import Folders, Progress, model_folders, sample_picture
from pipeline.segmenter.encoders.efficientnet_lite import ImageFeatures
from pipeline.segmenter.model import OpenVinoSegmenter, PromptBatch
from pipeline.segmenter.sam import Sam
from pipeline.types import SizeHW

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured.

    model: network and long side. part: "encoder" or "decoder". engine, precision: who computes and
    in what. input_hw: pixels of the input. prompts: of a decoder call. median_ms: of `rounds`
    interleaved runs. memory_mb: growth of the process's resident memory when this was loaded and
    first run, MiB (None where the system does not tell).
    """

    model: str
    part: str
    engine: str
    precision: str
    input_hw: SizeHW
    prompts: int
    median_ms: float
    rounds: int
    memory_mb: float | None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All rows, and the ratios of times that the goals are about (larger is better)."""

    rows: tuple[Row, ...]
    ratios: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {"rows": [asdict(row) for row in self.rows], "ratios": dict(self.ratios)}


@dataclass(frozen=True, slots=True)
class _Case:
    model: str
    part: str
    engine: str
    precision: str
    input_hw: SizeHW
    prompts: int
    run: Run
    memory_mb: float | None

    @classmethod
    def load(
        cls,
        model: str,
        part: str,
        engine: str,
        precision: str,
        input_hw: SizeHW,
        prompts: int,
        load: Callable[[], Run],
    ) -> _Case:
        """Load, run once to warm up, and see what that took."""
        before = _resident_mb()
        run = load()
        run()
        after = _resident_mb()
        grown = None if before is None or after is None else round(after - before, 1)
        return cls(model, part, engine, precision, input_hw, prompts, run, grown)


def bench_models(*, quick: bool = False, progress: Progress = lambda _: None) -> BenchReport:
    """Measure `tinysam` at 1024 and 512 and `lite`.

    torch and OpenVINO use all cores. quick: `tinysam` at 1024 and fewer prompts only.
    """
    threads = os.cpu_count() or 1
    kept = torch.get_num_threads()
    torch.set_num_threads(threads)
    rounds = 3
    rows: list[Row] = []
    try:
        tinysam, lite = filled_model("tinysam"), filled_model("lite")
        folders, lite_folders = (model_folders(m, progress) for m in (tinysam, lite))
        for label, model, where, side in (
            ("tinysam-1024", tinysam, folders, 1024),
            ("tinysam-512", tinysam, folders.with_long_side(512), 512),
            ("lite-1024", lite, lite_folders.with_long_side(1024), 1024),
            ("lite-512", lite, lite_folders, 512),
        ):
            if quick and label in {"tinysam-512", "lite-512"}:
                continue
            for part in (_encoders, _decoders):
                progress(f"{label}: {part.__name__.strip('_')}")
                rows += _measure(part(label, model, where, side, threads, quick), rounds)
    finally:
        torch.set_num_threads(kept)
    return BenchReport(tuple(rows), _ratios(rows))


def _sizes(side: int) -> dict[str, SizeHW]:
    return {"square": (side, side), "rectangle": (side * 9 // 16, side)}


def _encoders(
    label: str, model: Sam, folders: Folders, side: int, threads: int, quick: bool
) -> list[_Case]:
    cases = []
    for size_hw in _sizes(side).values():
        image = torch.zeros(1, 3, *size_hw)
        picture = sample_picture(size_hw)

        def in_torch(image: torch.Tensor = image) -> Run:
            return lambda: model.encode(image)

        cases.append(_Case.load(label, "encoder", "torch", "f32", size_hw, 0, in_torch))
        for precision, folder in (("f32", folders.fp32), ("int8", folders.int8)):

            def in_openvino(
                folder: Path = folder, size_hw: SizeHW = size_hw, picture: Any = picture
            ) -> Run:
                segmenter = OpenVinoSegmenter(folder, size_hw, threads=threads)
                return lambda: segmenter.encode_rgb(picture)

            cases.append(
                _Case.load(label, "encoder", "openvino", precision, size_hw, 0, in_openvino)
            )
    return cases


def _decoders(
    label: str, model: Sam, folders: Folders, side: int, threads: int, quick: bool
) -> list[_Case]:
    cases = []
    counts = (8, 10) if quick else (1, 8, 10, 64)
    for size_hw in _sizes(side).values():
        with torch.inference_mode():
            features = model.encode(torch.zeros(1, 3, *size_hw))
        for count in counts:

            def in_torch(features: ImageFeatures = features, count: int = count) -> Run:
                return _torch_decode(model, features, count)

            cases.append(_Case.load(label, "decoder", "torch", "f32", size_hw, count, in_torch))
        for precision, folder in (("f32", folders.fp32), ("int8", folders.int8)):
            segmenter = OpenVinoSegmenter(folder, size_hw, threads=threads)
            encoded = segmenter.encode_rgb(sample_picture(size_hw))
            for count in counts:
                prompts = PromptBatch.points(_points(count) * size_hw[::-1])

                def in_openvino(
                    segmenter: Any = segmenter, encoded: Any = encoded, prompts: Any = prompts
                ) -> Run:
                    return lambda: segmenter.decode(encoded, prompts)

                cases.append(
                    _Case.load(label, "decoder", "openvino", precision, size_hw, count, in_openvino)
                )
    return cases


def _points(count: int) -> Any:
    return np.random.default_rng(count).uniform(0.05, 0.95, (count, 1, 2))


def _torch_decode(model: Sam, features: ImageFeatures, count: int) -> Run:
    h, w = features.embedding.shape[-2:]
    xy = torch.zeros(count, 2, 2)
    xy[:, :1] = torch.from_numpy(_points(count))
    labels = torch.tensor([[1.0, -1.0]]).expand(count, 2)
    mask, has_mask = torch.zeros(count, 1, 4 * h, 4 * w), torch.zeros(count)
    return lambda: model.decode(features, xy, labels, mask, has_mask)


@torch.inference_mode()
def _measure(cases: list[_Case], rounds: int) -> list[Row]:
    times: list[list[float]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, taken in zip(cases, times, strict=True):
            begun = time.perf_counter()
            case.run()
            taken.append(1000 * (time.perf_counter() - begun))
    return [
        Row(
            c.model, c.part, c.engine, c.precision, c.input_hw, c.prompts,
            round(median(taken), 2), rounds, c.memory_mb,
        )
        for c, taken in zip(cases, times, strict=True)
    ]  # fmt: skip


def _ratios(rows: list[Row]) -> dict[str, float]:
    times = {
        (r.model, r.engine, r.precision, r.input_hw == (r.input_hw[1],) * 2, r.prompts): r.median_ms
        for r in rows
    }

    def torch_ms(model: str, prompts: int = 0) -> float:
        return times[model, "torch", "f32", True, prompts]

    def int8_ms(model: str, prompts: int = 0, square: bool = False) -> float:
        return times[model, "openvino", "int8", square, prompts]

    name = "tinysam-1024"
    original = torch_ms(name) + torch_ms(name, 10)
    ratios = {
        "tinysam_encoder_int8_vs_torch_equal_size": torch_ms(name) / int8_ms(name, square=True),
        "tinysam_encoder_int8_rect_vs_torch_square": torch_ms(name) / int8_ms(name),
        "tinysam_decoder8_vs_original": torch_ms(name, 8) / int8_ms(name, 8),
        "tinysam_decoder8_vs_original_equal_size": torch_ms(name, 8) / int8_ms(name, 8, True),
        "lite_encoder_int8_vs_torch_equal_size": torch_ms("lite-1024")
        / int8_ms("lite-1024", square=True),
        "tinysam_encode_plus_10_prompts_vs_original": original
        / (int8_ms(name) + int8_ms(name, 10)),
    }
    return {key: round(value, 2) for key, value in ratios.items()}


def _resident_mb() -> float | None:
    """Resident memory of this process, MiB (Linux only)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
