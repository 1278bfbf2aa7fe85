"""Pool of segmenters for images of different sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.models.find import names_checkpoint
from maskstream.pipeline.models.open import locate_model, open_segmenter
from maskstream.pipeline.segmenter.devices import choose_device
from maskstream.pipeline.segmenter.geometry import InputGeometry
from maskstream.pipeline.segmenter.model import Segmenter
from maskstream.pipeline.types import SizeHW

KEPT = 2
"""Segmenters in memory at once.

One of `lite` holds 100 MiB, and up to 550 MiB once OpenVINO has seen prompts of all shapes. Images
that come in the order of their shapes need one, and one more for crops.
"""

OpenSegmenter = Callable[[SizeHW], Segmenter]


class SegmenterPool:
    """Segmenters by input size of the network; images of different sizes share them.

    Opening one takes seconds, so images are best read in the order of their shapes. At most `KEPT`
    are kept, the last used.
    """

    def __init__(self, open_one: OpenSegmenter) -> None:
        self._open_one = open_one
        self._by_input: dict[SizeHW, Segmenter] = {}

    def for_size(self, frame_hw: SizeHW) -> Segmenter:
        """A segmenter for frames of this size, valid until the next call. Raises `ModelError`."""
        geometry = self._geometry(frame_hw)
        segmenter = self._by_input.pop(geometry.input_hw, None) if geometry else None
        if geometry is None or segmenter is None:
            segmenter = self._open_one(frame_hw)
            geometry = segmenter.geometry
        self._by_input[geometry.input_hw] = segmenter
        if len(self._by_input) > KEPT:
            del self._by_input[next(iter(self._by_input))]
        segmenter.geometry = geometry
        return segmenter

    def _geometry(self, frame_hw: SizeHW) -> InputGeometry | None:
        """Geometry of a frame in the input; None before the first segmenter is open."""
        known = next(iter(self._by_input.values()), None)
        if known is None:
            return None
        return known.card.fit(frame_hw)


def segmenter_opener(config: PipelineConfig) -> OpenSegmenter:
    """Function that opens `config.model`: a folder in its engine, a checkpoint in torch.

    A checkpoint is evaluated unquantized: quantizing would calibrate on the test images. Raises
    `ModelError`, and `MissingExtraError` if the engine is not installed.
    """
    if not names_checkpoint(config.model):
        folder = locate_model(config)
        return lambda frame_hw: open_segmenter(config, folder, frame_hw)
    if config.engine != "auto":
        raise ModelError(
            f"{config.model} is a checkpoint, which torch runs here: to run it by "
            f"{config.engine}, make a folder of it with 'quantize' or 'export-model'"
        )
    from maskstream.pipeline.models.find import find_checkpoint
    from maskstream.pipeline.models.resolve import require_training_extra

    checkpoint, architecture = find_checkpoint(config.model)
    require_training_extra(f"running the checkpoint {config.model}")
    return _torch_opener(checkpoint, architecture, config)


def _torch_opener(
    checkpoint: Path, architecture: str | None, config: PipelineConfig
) -> OpenSegmenter:
    import torch

    from maskstream.pipeline.models.checkpoint import load_network
    from maskstream.pipeline.segmenter.torch_segmenter import TorchSegmenter

    device = choose_device(config.device)
    torch.set_num_threads(config.threads.inference)
    network = load_network(checkpoint, architecture)
    return lambda frame_hw: TorchSegmenter(network, frame_hw, device)
