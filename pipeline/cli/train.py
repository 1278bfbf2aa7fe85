"""Commands that make models: `train`, `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)


def train(
    config: Annotated[Path, typer.Argument(help="A file of configs/train/.")],
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
) -> None:
    """Train a segmenter; continues where an earlier run of the same name stopped."""
    import torch

    from pipeline.training.config import load_train_config
    from pipeline.training.trainer import Trainer

    torch.set_num_threads(threads)
    Trainer(load_train_config(config)).run()
