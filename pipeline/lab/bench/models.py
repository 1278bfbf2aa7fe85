"""`bench models`: encoder and decoder times of torch and both engines, in interleaved runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch

from maskstream.pipeline.lab.bench.fill import filled_model
from maskstream.pipeline.lab.bench.folders import Folders, Progress, model_folders
from maskstream.pipeline.lab.bench.memory import peak_in_child, use_openvino, use_torch
from maskstream.pipeline.lab.bench.original import torch_decode
from maskstream.pipeline.lab.bench.sample_images import sample_image, sample_points
from maskstream.pipeline.quantization.gate import cosine
from maskstream.pipeline.segmenter.model import OpenVinoSegmenter, PromptBatch
from maskstream.pipeline.segmenter.onnx_segmenter import OnnxSegmenter
from maskstream.pipeline.segmenter.sam import Sam, build
from maskstream.pipeline.types import SizeHW

ROUNDS = 3
MANY = 64  # prompts; takes seconds, so it is run once
TEN = 10  # prompts of the goal for a whole keyframe, with one encoding
PROMPTS: Mapping[tuple[str, int], tuple[int, ...]] = {
    ("tinysam", 1024): (1, 8, TEN, MANY),
    ("tinysam", 512): (1, 8, MANY),
    ("lite", 1024): (),  # twice its usual size: encoder only, for the ratio at equal size
    ("lite", 512): (1, 8, MANY),
}
"""Numbers of prompts per decoder call measured by default, by network and long side."""

Memory = Mapping[tuple[str, str, SizeHW], float | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    model: network and long side. part: "encoder" or "decoder". engine: "torch", "openvino" or
    "onnxruntime". precision: "f32" or "int8". input_hw: pixels of the input. prompts: per decoder
    call. median_ms: of `rounds` interleaved runs. memory_mb: peak MiB of a separate process that
    loads the network in this engine, encodes an image and decodes 8 prompts (None if not measured).
    cosine: of an encoder's embedding with that of OpenVINO in FP32, for one image. cpu_ms: median
    processor time of all threads, which other work on the machine hardly changes.
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
    cosine: float | None = None
    cpu_ms: float | None = None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All rows, and the time ratios for which there are goals (larger is better).

    There are no ratios if other networks were selected.
    """

    rows: tuple[Row, ...]
    ratios: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {"rows": [asdict(row) for row in self.rows], "ratios": dict(self.ratios)}


@dataclass(frozen=True, slots=True)
class _Network:
    """One network at one long side."""

    model: Sam
    folders: Folders
    side: int

    @property
    def sizes_hw(self) -> tuple[SizeHW, ...]:
        """The padded square of the original, and a 16:9 rectangle unless frames are stretched."""
        square, rectangle = (self.side, self.side), (self.side * 9 // 16, self.side)
        return (square,) if self.model.architecture.stretched else (square, rectangle)


@dataclass(frozen=True, slots=True)
class _Case:
    part: str
    engine: str
    precision: str
    input_hw: SizeHW
    prompts: int
    run: Callable[[], object]
    cosine: float | None = None

    @property
    def rounds(self) -> int:
        return 1 if self.prompts == MANY else ROUNDS


def bench_models(
    names: Sequence[str] = (),
    *,
    quick: bool = False,
    threads: int | None = None,
    progress: Progress = lambda _: None,
) -> BenchReport:
    """Measure `tinysam` and `lite` at the sizes in `PROMPTS`, or other networks at their own.

    names: of `sam.BUILDERS`; they get random weights, and their decoders are run with 1 and with 10
    prompts. quick: only what the ratios need, without memory. threads: of every engine; None: one a
    core.
    """
    cases = {(name, build(name).architecture.long_side): (1, TEN) for name in names}
    threads = threads or os.cpu_count() or 1
    kept = torch.get_num_threads()
    torch.set_num_threads(threads)
    rows: list[Row] = []
    try:
        for (name, side), counts in (cases or PROMPTS).items():
            if quick and not cases and side != 1024:
                continue
            model = filled_model(name)
            label = f"{name}-{side}"
            network = _Network(model, model_folders(model, progress).with_long_side(side), side)
            memory: Memory = {}
            if counts and not quick:
                progress(f"{label}: memory")
                memory = _memory(network, name, threads)
            progress(f"{label}: speed")
            measured = tuple(n for n in counts if n in (8, TEN)) if quick else counts
            rows += _measure(label, _cases(network, threads, measured), memory)
    finally:
        torch.set_num_threads(kept)
    return BenchReport(tuple(rows), {} if cases else ratios_of(rows))


def _memory(network: _Network, name: str, threads: int) -> Memory:
    """Peak memory of the original on the padded square and of both graphs at their usual size."""
    square, usual = network.sizes_hw[0], network.sizes_hw[-1]
    peaks = {("torch", "f32", square): peak_in_child(use_torch, name, square, threads)}
    for precision, folder in network.folders.by_precision().items():
        peak = peak_in_child(use_openvino, folder, usual, threads)
        peaks["openvino", precision, usual] = peak
    return peaks


@torch.inference_mode()
def _cases(network: _Network, threads: int, counts: tuple[int, ...]) -> list[_Case]:
    """Every engine at both sizes; more than 8 prompts only at the engine's usual size."""
    few = tuple(count for count in counts if count <= 8)
    cases = []
    for size_hw in network.sizes_hw:
        square, usual = size_hw[0] == size_hw[1], size_hw == network.sizes_hw[-1]
        image = torch.zeros(1, 3, *size_hw)
        features = network.model.encode(image)
        encode = partial(network.model.encode, image)
        cases.append(_Case("encoder", "torch", "f32", size_hw, 0, encode))
        for count in counts if square else few:
            decode = torch_decode(network.model, features, count)
            cases.append(_Case("decoder", "torch", "f32", size_hw, count, decode))
        exact = None
        for engine, precision, segmenter in _segmenters(network.folders, size_hw, threads):
            rgb = sample_image(segmenter.geometry.valid_hw)
            run: Callable[[], object] = partial(segmenter.encode_rgb, rgb)
            encoded = segmenter.encode_rgb(rgb)
            embedding = encoded.tensors["embedding"]
            near = None if exact is None else round(cosine(exact, embedding), 5)
            exact = embedding if exact is None else exact
            cases.append(_Case("encoder", engine, precision, size_hw, 0, run, near))
            for count in counts if usual else few:
                prompts = PromptBatch.points(sample_points(count) * size_hw[::-1])
                run = partial(segmenter.decode, encoded, prompts)
                cases.append(_Case("decoder", engine, precision, size_hw, count, run))
    return cases


def _segmenters(
    folders: Folders, size_hw: SizeHW, threads: int
) -> Iterator[tuple[str, str, OpenVinoSegmenter | OnnxSegmenter]]:
    """Engine, precision, segmenter; OpenVINO in FP32 first, ONNX Runtime if it is installed."""
    for precision, folder in folders.by_precision().items():
        yield "openvino", precision, OpenVinoSegmenter(folder, size_hw, threads=threads)
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        return
    from maskstream.pipeline.models.export_onnx import write_folder_as_onnx

    for precision, folder in folders.by_precision().items():
        in_onnx = folder.with_name(f"{folder.name}-onnx")
        write_folder_as_onnx(folder, in_onnx, int8=precision == "int8")
        yield "onnxruntime", precision, OnnxSegmenter(in_onnx, size_hw, threads=threads)


@torch.inference_mode()
def _measure(label: str, cases: list[_Case], memory: Memory) -> list[Row]:
    """Run all cases interleaved, after a warm-up of the decoders; encoders have already run."""
    for case in cases:
        if 0 < case.prompts < MANY:
            case.run()
    times: list[list[float]] = [[] for _ in cases]
    cpu_times: list[list[float]] = [[] for _ in cases]
    for turn in range(ROUNDS):
        for case, taken, worked in zip(cases, times, cpu_times, strict=True):
            if turn >= case.rounds:
                continue
            begun, cpu_begun = time.perf_counter(), time.process_time()
            case.run()
            taken.append(1000 * (time.perf_counter() - begun))
            worked.append(1000 * (time.process_time() - cpu_begun))
    return [
        Row(
            model=label,
            part=case.part,
            engine=case.engine,
            precision=case.precision,
            input_hw=case.input_hw,
            prompts=case.prompts,
            median_ms=round(median(taken), 2),
            rounds=case.rounds,
            memory_mb=memory.get((case.engine, case.precision, case.input_hw)),
            cosine=case.cosine,
            cpu_ms=round(median(worked), 2),
        )
        for case, taken, worked in zip(cases, times, cpu_times, strict=True)
    ]


def ratios_of(rows: Sequence[Row]) -> dict[str, float]:
    """The ratios of the goals: time of the original divided by that of the INT8 graphs."""
    times = {
        (r.model, r.engine, r.precision, r.input_hw[0] == r.input_hw[1], r.prompts): r.median_ms
        for r in rows
    }

    def torch_ms(model: str, prompts: int = 0) -> float:
        return times[model, "torch", "f32", True, prompts]

    def int8_ms(model: str, prompts: int = 0, square: bool = False) -> float:
        return times[model, "openvino", "int8", square, prompts]

    name = "tinysam-1024"
    original = torch_ms(name) + torch_ms(name, TEN)
    ratios = {
        "tinysam_encoder_int8_vs_torch_equal_size": torch_ms(name) / int8_ms(name, square=True),
        "tinysam_encoder_int8_rect_vs_torch_square": torch_ms(name) / int8_ms(name),
        "tinysam_decoder8_vs_original": torch_ms(name, 8) / int8_ms(name, 8),
        "tinysam_decoder8_vs_original_equal_size": torch_ms(name, 8) / int8_ms(name, 8, True),
        "lite_encoder_int8_vs_torch_equal_size": torch_ms("lite-1024")
        / int8_ms("lite-1024", square=True),
        "tinysam_encode_plus_10_prompts_vs_original": original
        / (int8_ms(name) + int8_ms(name, TEN)),
    }
    return {key: round(value, 2) for key, value in ratios.items()}
