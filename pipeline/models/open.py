"""Open the segmenter of a configuration."""

from __future__ import annotations

from pathlib import Path

from maskstream.pipeline.config import PipelineConfig, ThreadsConfig
from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.models.find import (
    find_checkpoint,
    find_model,
    holds_onnx,
    is_graph,
    names_checkpoint,
)
from maskstream.pipeline.models.onnx_folder import need_onnx, onnx_folder
from maskstream.pipeline.segmenter.devices import choose_device
from maskstream.pipeline.segmenter.model import OpenVinoSegmenter, Segmenter
from maskstream.pipeline.segmenter.onnx_segmenter import OnnxSegmenter, usable_providers
from maskstream.pipeline.types import Engine, SizeHW, WantedDevice, WantedEngine


def runs_in_torch(config: PipelineConfig) -> bool:
    """Whether `config.model` is a checkpoint that torch runs on CUDA. Raises `ModelError`."""
    if config.engine == "onnxruntime" or not names_checkpoint(config.model):
        return False
    return choose_device(config.device) == "cuda"


def engine_of(config: PipelineConfig, folder: Path) -> Engine:
    """The engine for a model folder; "auto": the one whose files it holds, else OpenVINO."""
    if config.engine != "auto":
        return config.engine
    return "onnxruntime" if holds_onnx(folder) else "openvino"


def locate_model(config: PipelineConfig) -> Path:
    """Path of `config.model`: a checkpoint file if torch runs it on CUDA, else a folder or graph.

    Raises `ModelError`, also if `config.engine` cannot run it, and `MissingExtraError` if that is
    not installed.
    """
    if runs_in_torch(config):
        return find_checkpoint(config.model)[0]
    if names_checkpoint(config.model):
        find_checkpoint(config.model)
        raise ModelError(
            f"{config.model} is a checkpoint, which runs on the device cuda only: for the CPU make "
            f"a folder of it with 'quantize --checkpoint {config.model}', and give that"
        )
    model = find_model(config.model)
    check_engine(config, model)
    return model


def check_engine(config: PipelineConfig, model: Path) -> None:
    """Raise `ModelError` or `MissingExtraError` unless `config.engine` can run a folder or graph.

    Opening it needs the size of an image, which is known late: so what is missing is said before.
    """
    if is_graph(model):
        if config.engine == "onnxruntime":
            raise ModelError(f"{model} is FastSAM's graph, which the engine openvino runs")
    elif engine_of(config, model) == "onnxruntime":
        usable_providers(config.device)
        if not holds_onnx(model):
            need_onnx()
    elif holds_onnx(model):
        raise ModelError(f"{model} holds ONNX files, which the engine onnxruntime runs")


def open_model(
    name: str | Path,
    size_hw: SizeHW,
    *,
    device: WantedDevice = "cpu",
    engine: WantedEngine = "auto",
    threads: int = 2,
) -> Segmenter:
    """Open a model for images of one size.

    name: of an embedded model or a published checkpoint, or a model folder or a checkpoint file;
    checkpoints run on CUDA only. engine: "auto" runs a folder of ONNX files in ONNX Runtime.
    threads: for inference on the CPU. Raises `ModelError`, and `MissingExtraError` if the engine is
    not installed.
    """
    config = PipelineConfig(
        model=str(name), device=device, engine=engine, threads=ThreadsConfig(inference=threads)
    )
    return open_segmenter(config, locate_model(config), size_hw)


def open_graphs(
    model: Path, frame_hw: SizeHW, threads: int, *, input_share: float = 1.0
) -> Segmenter:
    """Open a model folder or FastSAM's graph for the CPU. Raises `ModelError`."""
    if is_graph(model):
        from maskstream.pipeline.detectors.fast_sam import FastSamSegmenter

        return FastSamSegmenter(model, frame_hw, threads=threads, input_share=input_share)
    return OpenVinoSegmenter(model, frame_hw, threads=threads, input_share=input_share)


def open_segmenter(
    config: PipelineConfig, model: Path, frame_hw: SizeHW, *, input_share: float = 1.0
) -> Segmenter:
    """Open `config.model` on `config.device` for frames of one size.

    input_share: of the encoder's long side (not in torch). model: path of `config.model`, a folder
    of graphs or FastSAM's graph, or a checkpoint file, for torch on CUDA. OpenVINO runs graphs on
    the CPU, also with the device "auto"; `engine_of` tells when ONNX Runtime does. Raises
    `ModelError`, and `MissingExtraError` if the engine is not installed.
    """
    are_graphs = model.is_dir() or is_graph(model)
    if are_graphs:
        check_engine(config, model)
    if model.is_dir() and engine_of(config, model) == "onnxruntime":
        return OnnxSegmenter(
            onnx_folder(model),
            frame_hw,
            threads=config.threads.inference,
            input_share=input_share,
            device=config.device,
        )
    device = "cpu" if are_graphs and config.device == "auto" else choose_device(config.device)
    if device == "cpu":
        return open_graphs(model, frame_hw, config.threads.inference, input_share=input_share)
    if are_graphs:
        raise ModelError(
            f"device cuda cannot run the model '{config.model}', whose graphs are for the CPU: "
            "give a checkpoint file, or the name of one that 'weights list' shows as fetched"
        )
    from maskstream.pipeline.models.checkpoint import load_network
    from maskstream.pipeline.segmenter.torch_segmenter import TorchSegmenter

    checkpoint, architecture = find_checkpoint(config.model)
    return TorchSegmenter(load_network(checkpoint, architecture), frame_hw, device)
