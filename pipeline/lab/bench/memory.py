"""Peak memory of an engine, measured in its own process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from maskstream.pipeline.lab.bench.sample_images import sample_image, sample_points
from maskstream.pipeline.types import SizeHW

PROMPTS = 8


def peak_in_child(task: Callable[..., None], *arguments: object) -> float | None:
    """Run a task in a new process; returns its peak memory in MiB (None where unknown)."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_mb, task, arguments).result()


def _peak_mb(task: Callable[..., None], arguments: tuple[object, ...]) -> float | None:
    task(*arguments)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    (kib,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return round(int(kib) / 1024, 1)


def use_openvino(folder: Path, size_hw: SizeHW, threads: int) -> None:
    """Encode an image and decode 8 prompts in OpenVINO."""
    from maskstream.pipeline.segmenter.model import OpenVinoSegmenter, PromptBatch

    segmenter = OpenVinoSegmenter(folder, size_hw, threads=threads)
    features = segmenter.encode_rgb(sample_image(segmenter.geometry.valid_hw))
    points = sample_points(PROMPTS) * np.array(size_hw[::-1])
    segmenter.decode(features, PromptBatch.points(points))


def use_torch(name: str, size_hw: SizeHW, threads: int) -> None:
    """Encode an image and decode 8 prompts in torch."""
    import torch

    from maskstream.pipeline.lab.bench.fill import filled_model
    from maskstream.pipeline.lab.bench.original import torch_decode

    torch.set_num_threads(threads)
    model = filled_model(name)
    with torch.inference_mode():
        features = model.encode(torch.zeros(1, 3, *size_hw))
        torch_decode(model, features, PROMPTS)()
