"""Segmenter from a folder of ONNX files, run by ONNX Runtime on the CPU or an NVIDIA GPU.

The second engine beside OpenVINO, for machines with a CUDA device: TensorRT or CUDA execution
providers are taken where ONNX Runtime has them. torch and OpenVINO are not imported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.extras import need
from maskstream.pipeline.segmenter.geometry import FloatMap
from maskstream.pipeline.segmenter.model import Decoded, Features, PromptBatch, read_card
from maskstream.pipeline.segmenter.prompt_batches import Tensors, in_batches, mask_inputs
from maskstream.pipeline.types import Frame, SizeHW, WantedDevice
from maskstream.pipeline.weights.cache import cache_folder

Provider = tuple[str, dict[str, str]]

_TENSORRT = "TensorrtExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_DECODER_INPUTS = frozenset({"xy", "labels", "mask", "has_mask", "grid"})
"""Of the decoder, beside the encoder's features."""
_QUIET = 3  # ONNX Runtime's severity "error"

_log = logging.getLogger(__name__)


def runtime() -> Any:
    """The package `onnxruntime`, with its usage reports off. Raises `MissingExtraError`."""
    found = need(
        "onnxruntime",
        "the engine onnxruntime",
        "the package onnxruntime: pip install 'maskstream[onnx]', and onnxruntime-gpu in its place "
        "on a machine with an NVIDIA GPU",
    )
    found.disable_telemetry_events()
    return found


def choose_providers(device: WantedDevice, available: Sequence[str]) -> list[Provider]:
    """Execution providers for a device, the preferred first; the CPU's is last always.

    available: as `onnxruntime.get_available_providers()`. "auto": TensorRT and CUDA where they are
    there. TensorRT builds engines on first use, which are kept in the cache. Raises `ModelError` if
    "cuda" is wanted and there is neither.
    """
    found: list[Provider] = []
    if device != "cpu":
        if _TENSORRT in available:
            engines = str(cache_folder("tensorrt"))
            options = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": engines}
            found.append((_TENSORRT, options))
        if _CUDA in available:
            found.append((_CUDA, {}))
    if device == "cuda" and not found:
        raise ModelError(
            "device cuda cannot be used: this ONNX Runtime has no provider for NVIDIA GPUs; "
            "pip install onnxruntime-gpu in place of onnxruntime"
        )
    return [*found, (_CPU, {})]


def usable_providers(device: WantedDevice) -> list[Provider]:
    """`choose_providers` of the ONNX Runtime that is installed.

    Raises `ModelError`, and `MissingExtraError` without ONNX Runtime.
    """
    return choose_providers(device, runtime().get_available_providers())


class OnnxSegmenter:
    """A folder of ONNX files (`export-model`), opened for one frame size.

    threads: of the CPU. input_share: share of the model's long side. device: as `choose_providers`.
    Raises `ModelError` if the folder cannot be loaded, `MissingExtraError` without ONNX Runtime.
    """

    def __init__(
        self,
        folder: Path,
        frame_hw: SizeHW,
        *,
        threads: int = 2,
        input_share: float = 1.0,
        device: WantedDevice = "cpu",
    ) -> None:
        self.card = read_card(folder)
        self.geometry = self.card.fit(frame_hw, input_share)
        providers = usable_providers(device)
        height, width = self.geometry.input_hw
        grid_height, grid_width = self.geometry.grid_hw
        image = {"batch": 1, "height": height, "width": width}
        self._encoder = OnnxSession(folder / "encoder.onnx", image, threads, providers)
        sides = {"grid_height": grid_height, "grid_width": grid_width}
        self._decoder = OnnxSession(folder / "decoder.onnx", sides, threads, providers)
        self._check_graphs(folder)
        self._cells = self.geometry.cell_centers()

    def _check_graphs(self, folder: Path) -> None:
        """Raise `ModelError` unless the graphs are an encoder and the decoder of its features."""
        encoder, decoder = self._encoder, self._decoder
        if encoder.inputs != ["image"] or "embedding" not in encoder.outputs:
            raise ModelError(f"{folder / 'encoder.onnx'} is not an encoder of `export-model`")
        unknown = set(decoder.inputs) - {*encoder.outputs, *_DECODER_INPUTS}
        if unknown or not {"masks", "iou"} <= set(decoder.outputs):
            raise ModelError(
                f"{folder / 'decoder.onnx'} is not the decoder that `export-model` wrote with the "
                "encoder beside it"
            )

    @property
    def providers(self) -> list[str]:
        """The execution providers that ONNX Runtime took for the encoder, the preferred first."""
        return self._encoder.providers

    def encode(self, frame: Frame) -> Features:
        """Encode a frame of the size this was opened for."""
        return self.encode_rgb(frame.rgb(self.geometry.valid_hw))

    def encode_rgb(self, rgb: npt.NDArray[np.uint8]) -> Features:
        """Encode an image already scaled to `geometry.valid_hw`, RGB uint8."""
        padded = self.geometry.pad(rgb, self.card.pad_rgb)
        return Features(self._encoder({"image": padded[None]}))

    def decode(self, features: Features, prompts: PromptBatch) -> Decoded:
        """Decode prompts in batches. Raises `PromptError` if the model cannot take them."""
        self.card.check(prompts)
        grid_hw = self.geometry.grid_hw
        given = {"xy": self.geometry.normalize(prompts.xy), "labels": prompts.labels}
        given |= mask_inputs(len(prompts), grid_hw, prompts.mask, prompts.has_mask)
        fixed = {**features.tensors, "grid": self._cells}

        def run(batch: Tensors) -> tuple[FloatMap, npt.NDArray[np.float32]]:
            out = self._decoder({**fixed, **batch})
            return out["masks"], out["iou"]

        return self.card.decoded(*in_batches(run, given, grid_hw))


class OnnxSession:
    """An ONNX file, opened for fixed lengths of some named axes.

    providers: None for the CPU. inputs, outputs: names of the graph's tensors. Raises `ModelError`,
    and `MissingExtraError` without ONNX Runtime.
    """

    def __init__(
        self,
        file: Path,
        axes: Mapping[str, int],
        threads: int,
        providers: Sequence[Provider] | None = None,
    ) -> None:
        providers = [(_CPU, {})] if providers is None else providers
        ort = runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _QUIET
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for name, length in axes.items():
            options.add_free_dimension_override_by_name(name, length)
        try:
            self._session = ort.InferenceSession(str(file), options, providers=list(providers))
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise ModelError(f"ONNX Runtime cannot load {file}: {error}") from error
        self.providers: list[str] = self._session.get_providers()
        missed = [name for name, _ in providers if name not in self.providers]
        if missed:
            _log.warning("ONNX Runtime could not start %s for %s", ", ".join(missed), file.name)
        self.inputs = [port.name for port in self._session.get_inputs()]
        self.outputs = [port.name for port in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """Outputs by name; inputs that the graph does not have are ignored."""
        given = {name: inputs[name] for name in self.inputs}
        return dict(zip(self.outputs, self._session.run(None, given), strict=True))
