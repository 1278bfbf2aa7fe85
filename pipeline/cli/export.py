"""Commands `export` and `import-masks`: convert masks to and from other formats."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.options import (
    EndOption,
    FpsOption,
    QuietOption,
    ReplaceOption,
    StartOption,
    StrideOption,
)
from maskstream.pipeline.cli.report import progress_bar

if TYPE_CHECKING:
    from maskstream.pipeline.exports.export import ExportChoice

_INTERRUPTED = 130
_FORMATS = (
    "davis, youtube-vos, png, png-8, png-matte, png-matte-16, coco, coco-ytvis, mots, mot, "
    "yolo-seg, labelme, cvat, ome-zarr, npz, prores, vp9, ffv1, matte, matte-lossless, png-rgba, "
    "png-rgba-16, exr, green, background, overlay (docs/reference/exports.md)."
)

_IMPORTED = (
    "davis, png, matte, video, coco, mots, yolo-seg, labelme, cvat, npz or ome-zarr; default: by "
    "what PLACE holds."
)


class Edge(StrEnum):
    """Treatment of a mask's edge."""

    HARD = "hard"
    SOFT = "soft"


def register(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(export)
    app.command("import-masks")(import_masks)


def export(
    store: Annotated[str, typer.Argument(metavar="OUT.zarr", help="A mask store (or URL).")],
    place: Annotated[Path, typer.Option("-o", "--output", help="File or folder to write.")],
    format_name: Annotated[str, typer.Option("--format", help=_FORMATS)],
    objects: Annotated[
        str | None, typer.Option(help="Object ids or names, separated by commas; default: all.")
    ] = None,
    start: StartOption = None,
    end: EndOption = None,
    template: Annotated[
        str | None, typer.Option(help="Template of file names: {source}_{object}_{frame:06d}.")
    ] = None,
    frame_offset: Annotated[int, typer.Option(help="Added to every frame number.")] = 0,
    source: Annotated[
        Path | None,
        typer.Option("--source", "--video", help="The video, if it has moved since the run."),
    ] = None,
    trust_video: Annotated[
        bool,
        typer.Option("--trust-video", help="Accept a video that was re-encoded or remuxed."),
    ] = False,
    images: Annotated[
        bool,
        typer.Option("--images", help="Also write the video's frames (JPEG), for datasets."),
    ] = False,
    edge: Annotated[
        Edge, typer.Option(help="Edges of mattes: the masks' own, or following the image.")
    ] = Edge.HARD,
    feather: Annotated[float, typer.Option(help="Blur edges by this many pixels.")] = 0.0,
    grow: Annotated[
        float, typer.Option(help="Grow mattes by this many pixels; negative: shrink.")
    ] = 0.0,
    fill_holes: Annotated[int, typer.Option(help="Fill holes of up to this many pixels.")] = 0,
    remove_islands: Annotated[
        int, typer.Option(help="Remove islands of up to this many pixels.")
    ] = 0,
    smooth: Annotated[
        int, typer.Option(help="Reduce flicker: majority vote over this odd number of frames.")
    ] = 1,
    background: Annotated[
        str | None,
        typer.Option(help="For that format: #rrggbb, green, an image, blur or blur:PIXELS."),
    ] = None,
    fps: FpsOption = None,
    keep_start: Annotated[
        bool,
        typer.Option("--keep-start", help="Keep the time of the first frame; default: start at 0."),
    ] = False,
    overwrite: ReplaceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Export masks in another format, and read them back to verify."""
    from maskstream.pipeline.exports.edges import Edges
    from maskstream.pipeline.exports.export import ExportChoice
    from maskstream.pipeline.sources.position import parse_rate

    choice = ExportChoice(
        format=format_name,
        objects=objects,
        start=start,
        end=end,
        template=template,
        offset=frame_offset,
        overwrite=overwrite,
        video=source,
        trust_video=trust_video,
        edges=Edges(edge is Edge.SOFT, feather, grow, fill_holes, remove_islands, smooth),
        background=background,
        images=images,
        fps=None if fps is None else parse_rate(fps),
        keep_start=keep_start,
    )
    _export(store, place, choice, quiet=quiet)


def _export(store: str, place: Path, choice: ExportChoice, *, quiet: bool) -> None:
    """Export with a progress bar, and print a summary."""
    from maskstream.pipeline.exports.export import export_store
    from maskstream.pipeline.store import MaskStore

    masks = MaskStore(store)
    try:
        with progress_bar(hidden=quiet) as bar:
            summary = export_store(masks, place, choice, on_start=bar.start, on_frame=bar.advance)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command continues with {place} if it is a folder", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    if not masks.complete:
        last = f"it ends with frame {masks.indices[-1]}"
        typer.echo(f"note: the mask store {store} is not complete, {last}", err=True)
    if not quiet:
        kept = f", {summary.kept} files existed already" if summary.kept else ""
        typer.echo(
            f"{place}: {summary.frames} frames, {summary.objects} objects, read back with "
            f"an IoU of at least {summary.worst_iou:.4g}{kept}"
        )


def import_masks(
    place: Annotated[
        Path,
        typer.Argument(metavar="PLACE", help="Images, a video or annotations with masks."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Prompts JSON to write.")],
    format_name: Annotated[str | None, typer.Option("--format", help=_IMPORTED)] = None,
    stride: StrideOption = 1,
    frame_offset: Annotated[int, typer.Option(help="Added to every frame number.")] = 0,
    specks: Annotated[
        int, typer.Option(min=0, help="Drop parts of noisy mattes below this many pixels.")
    ] = 16,
    source: Annotated[
        Path | None, typer.Option(help="The video, for formats that do not state its size (YOLO).")
    ] = None,
    overwrite: ReplaceOption = False,
) -> None:
    """Convert masks made elsewhere to prompts for `run --prompts`."""
    from maskstream.pipeline.imports.prompts_file import ImportChoice, import_as_prompts

    choice = ImportChoice(format_name, stride, frame_offset, specks, source, overwrite)
    count = import_as_prompts(place, output, choice)
    if count.specks:
        typer.echo(
            f"note: {count.specks} parts of fewer than {specks} pixels were dropped on "
            f"{count.speck_frames} frames; they look like noise (--specks 0 keeps them)",
            err=True,
        )
    typer.echo(
        f"{output}: {count.masks} masks of {count.objects} objects on {count.frames} frames; "
        f"use them with: maskstream run VIDEO --prompts {output}"
    )
