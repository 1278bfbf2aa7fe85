"""Commands `train`, `train-video` and `train-objectness`: segmenters, the memory, the head."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from maskstream.pipeline.lab.training.cached_trainer import CachedTrainer, Progress
    from maskstream.pipeline.lab.training.config import CachedTrainConfig
    from maskstream.pipeline.lab.training.video.config import VideoTrainConfig

Config = TypeVar("Config", bound="CachedTrainConfig")
Trained = TypeVar("Trained", bound="CachedTrainer[Any, Any]")


def register(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(train)
    app.command()(train_video)
    app.command()(train_objectness)


def train(
    configs: Annotated[
        list[Path], typer.Argument(metavar="CONFIG...", help="Files of configs/train/.")
    ],
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    weights: Annotated[
        Path | None, typer.Option(help="Also write the averaged weights, FP16, to this file.")
    ] = None,
) -> None:
    """Train segmenters one after the other and print their scores on the held-out split.

    A run resumes an earlier one of the same name; Ctrl-C loses only the steps since the last
    checkpoint.
    """
    from maskstream.pipeline.models.resolve import require_training_extra

    require_training_extra("training")
    import cv2
    import torch

    from maskstream.pipeline.lab.training.config import load_train_config
    from maskstream.pipeline.lab.training.trainer import Trainer

    loaded = [load_train_config(config) for config in configs]
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    results: dict[str, dict[str, Any]] = {}
    for config in loaded:
        trainer = Trainer(config, progress=_show)
        try:
            results[config.name] = trainer.run()
        except KeyboardInterrupt:
            typer.echo(f"\nstopped; {trainer.checkpoint} holds the last checkpoint", err=True)
            raise typer.Exit(130) from None
        if weights is not None:
            trainer.write_weights(weights)
    _print_table(results)


def train_video(
    config: Annotated[Path, typer.Argument(help="A file such as configs/train/video/memory.yaml.")],
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    minutes: Annotated[
        float, typer.Option(help="Stop after so many minutes; the next run resumes.", min=0)
    ] = math.inf,
    weights: Annotated[
        Path | None, typer.Option(help="Also write the averaged weights, FP16, to this file.")
    ] = None,
    graphs: Annotated[
        Path | None, typer.Option(help="Also write the OpenVINO graphs to this folder.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8/--fp32", help="Precision of the convolutions of the graphs.")
    ] = True,
) -> None:
    """Train the memory on sequences rendered from labeled stills.

    Sequences are rendered and encoded first, and cached. A run resumes an earlier one of the same
    name; Ctrl-C loses only the steps since the last checkpoint.
    """
    from maskstream.pipeline.models.resolve import require_training_extra

    require_training_extra("training")
    from maskstream.pipeline.lab.training.video.config import load_video_config
    from maskstream.pipeline.lab.training.video.trainer import VideoTrainer, prepare_sequences
    from maskstream.pipeline.memory.card import MemoryCard
    from maskstream.pipeline.memory.graphs import write_memory
    from maskstream.pipeline.models.find import content_hash, find_model

    loaded = load_video_config(config)
    prepared = (f"sequences {done}/{total}" for done, total in prepare_sequences(loaded))
    trainer = _train_cached(loaded, prepared, VideoTrainer, threads, minutes, weights)
    if trainer is None:
        return
    if graphs is not None:
        card = MemoryCard(
            encoder=loaded.encoder,
            encoder_hash=content_hash(find_model(loaded.encoder)),
            source=f"{config}, step {trainer.step}",
        )
        write_memory(trainer.average, graphs, card)
        if int8:
            _quantize_memory(graphs, loaded)


def train_objectness(
    config: Annotated[
        Path, typer.Argument(help="A file such as configs/train/objectness/lite.yaml.")
    ],
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    minutes: Annotated[
        float, typer.Option(help="Stop after so many minutes; the next run resumes.", min=0)
    ] = math.inf,
    weights: Annotated[
        Path | None, typer.Option(help="Also write the averaged weights, FP16, to this file.")
    ] = None,
    graphs: Annotated[
        Path | None, typer.Option(help="Also write the OpenVINO graph to this folder.")
    ] = None,
) -> None:
    """Train the objectness head, which proposes boxes of objects, on labeled stills.

    Stills are augmented and encoded first, and cached. A run resumes an earlier one of the same
    name; Ctrl-C loses only the steps since the last checkpoint.
    """
    from maskstream.pipeline.models.resolve import require_training_extra

    require_training_extra("training")
    from maskstream.pipeline.lab.training.objectness.cache import prepare_batches
    from maskstream.pipeline.lab.training.objectness.config import load_objectness_config
    from maskstream.pipeline.lab.training.objectness.trainer import ObjectnessTrainer
    from maskstream.pipeline.models.find import content_hash, find_model
    from maskstream.pipeline.objectness.card import ObjectnessCard
    from maskstream.pipeline.objectness.graph import write_objectness

    loaded = load_objectness_config(config)
    prepared = (f"batches {done}/{loaded.batches}" for done in prepare_batches(loaded))
    trainer = _train_cached(loaded, prepared, ObjectnessTrainer, threads, minutes, weights)
    if trainer is None:
        return
    if graphs is not None:
        card = ObjectnessCard(
            encoder=loaded.encoder,
            encoder_hash=content_hash(find_model(loaded.encoder)),
            source=f"{config}, step {trainer.step}",
        )
        write_objectness(trainer.average, graphs, card)


def _train_cached(
    config: Config,
    prepared: Iterable[str],
    make: Callable[[Config, Progress], Trained],
    threads: int,
    minutes: float,
    weights: Path | None,
) -> Trained | None:
    """Prepare features and train on them; None if the time was over before.

    prepared: prepares them, and tells how far. make: the trainer.
    """
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    ends = time.monotonic() + 60 * minutes
    try:
        for line in prepared:
            typer.echo(f"{config.name} {line}", err=True)
            if time.monotonic() > ends:
                return None
        trainer = make(config, lambda step, row: _show(config.name, step, config.steps, row))
        trainer.run(ends - time.monotonic())
    except KeyboardInterrupt:
        typer.echo(f"\nstopped; {config.folder} holds the last checkpoint", err=True)
        raise typer.Exit(130) from None
    if weights is not None:
        trainer.write_weights(weights)
    return trainer


def _quantize_memory(graphs: Path, config: VideoTrainConfig) -> None:
    from maskstream.pipeline.lab.training.video.trainer import calibration_sequences
    from maskstream.pipeline.quantization.memory_graphs import write_int8

    found = write_int8(graphs, *calibration_sequences(config))
    typer.echo(f"INT8: mask IoU {found.mask_iou:.3f}, equal presence {found.presence:.3f}")


def _show(name: str, step: int, steps: int, row: dict[str, Any]) -> None:
    """Print one line per checkpoint: progress and time left."""
    left = row["seconds"] * (steps - step)
    validation = row.get("validation", {}).get("macro", {})
    figures = " ".join(f"{kind} {value:.3f}" for kind, value in validation.items())
    typer.echo(
        f"{name} step {step}/{steps} loss {row['loss']:.3f} "
        f"{row['seconds']:.1f} s/step, {left / 60:.0f} min left {figures}".rstrip(),
        err=True,
    )


def _print_table(results: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    kinds = list(next(iter(results.values())))
    table = Table("run", *kinds, title="held-out split, mean IoU over sources")
    for name, macro in results.items():
        table.add_row(name, *(f"{macro[kind]:.3f}" for kind in kinds))
    Console().print(table)
