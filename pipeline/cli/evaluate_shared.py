"""What the commands of `eval` share: options, the images and the model they open, the progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.model_options import ModelOptions
from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from maskstream.pipeline.exports.coco_annotations import CocoAnnotations
    from maskstream.pipeline.lab.evaluation.coco import CocoItem
    from maskstream.pipeline.lab.evaluation.examples import ImageSet
    from maskstream.pipeline.models.pool import SegmenterPool

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
HeldOutOption = Annotated[
    int,
    typer.Option(min=0, max=50, help="Only the scenes held out from training, in percent."),
]
ImageRootOption = Annotated[Path | None, typer.Option(help="Folder of the images in the JSON.")]
LimitOption = Annotated[
    int | None, typer.Option("--images", min=1, help="Images per source, evenly spaced.")
]
SingleMaskOption = Annotated[
    bool,
    typer.Option(
        "--single-mask",
        help="Take the decoder's single mask, not the best of three by predicted IoU.",
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=64, help="CPU threads; default: all cores.")
]


@dataclass(frozen=True, slots=True)
class ImageData:
    """Images with masks, by source; of a COCO or LVIS file also its annotations and items."""

    sets: Sequence[ImageSet]
    annotations: CocoAnnotations | None = None
    items: Sequence[CocoItem] = ()


def open_images(
    data: Path, image_root: Path | None, *, held_out: int = 0, limit: int | None = None
) -> ImageData:
    """Open a folder of label maps or a COCO or LVIS file. Raises `ConfigError`, `SourceError`.

    held_out: percent of scenes. limit: images per source.
    """
    from maskstream.pipeline.exports.coco_annotations import load_coco
    from maskstream.pipeline.lab.evaluation.coco import as_image_set, coco_images
    from maskstream.pipeline.lab.evaluation.labelmaps import find_label_maps

    if data.suffix.lower() != ".json":
        if image_root is not None:
            raise ConfigError("--image-root needs --data FILE.json")
        return ImageData(find_label_maps(data, held_out_percent=held_out, images=limit))
    if image_root is None:
        raise ConfigError("--data FILE.json needs --image-root, the folder of its images")
    annotations = load_coco(data)
    items = coco_images(annotations, image_root, held_out_percent=held_out, images=limit)
    return ImageData([as_image_set(items, data.stem)], annotations, items)


def open_pool(options: ModelOptions, threads: int | None) -> SegmenterPool:
    """Segmenters of a model for images of any size. Raises `ConfigError`, `ModelError`."""
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.models.pool import SegmenterPool, segmenter_opener

    count = threads or min(os.cpu_count() or 1, 64)
    config = load_config(overrides=[*options.settings, f"threads.inference={count}"])
    return SegmenterPool(segmenter_opener(config))


def compact_table(*names: str) -> Table:
    """A table without a frame, for many columns; names: of the first ones, which hold text."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


@contextmanager
def progress_bar(
    total: int, unit: str = "images", *, hidden: bool
) -> Iterator[Callable[[str, int], None]]:
    """Show a progress bar on standard error; call what it gives with a name and the steps done."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=hidden) as bar:
        task = bar.add_task(unit, total=total)
        yield lambda name, steps: bar.update(task, advance=steps, description=name)


@contextmanager
def image_progress(total: int, *, hidden: bool) -> Iterator[Callable[[str], None]]:
    """Show a progress bar over images; call what it gives with a name after each of them."""
    with progress_bar(total, hidden=hidden) as advance:
        yield lambda name: advance(name, 1)
