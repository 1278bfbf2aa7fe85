"""Printed reports of the `bench` commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from maskstream.pipeline.lab.bench.cameras import CamerasReport
    from maskstream.pipeline.lab.bench.everything import EverythingReport
    from maskstream.pipeline.lab.bench.exports import ExportsReport
    from maskstream.pipeline.lab.bench.live import LiveReport
    from maskstream.pipeline.lab.bench.live_ages import AgeRow
    from maskstream.pipeline.lab.bench.macs import Macs
    from maskstream.pipeline.lab.bench.models import BenchReport
    from maskstream.pipeline.lab.bench.rectangle import RectangleReport
    from maskstream.pipeline.lab.bench.store import StoreReport
    from maskstream.pipeline.lab.bench.stream import StreamReport


def print_models(report: BenchReport) -> None:
    """Print times of the networks, and their speedup over the original."""
    columns = ("model", "part", "engine", "precision", "input", "prompts", "ms", "CPU ms")
    table = Table(*columns, "peak MiB", "cosine")
    for row in report.rows:
        height, width = row.input_hw
        table.add_row(
            row.model,
            row.part,
            row.engine,
            row.precision,
            f"{width}x{height}",
            str(row.prompts or ""),
            f"{row.median_ms:.1f}",
            "" if row.cpu_ms is None else f"{row.cpu_ms:.1f}",
            "" if row.memory_mb is None else f"{row.memory_mb:.0f}",
            "" if row.cosine is None else f"{row.cosine:.4f}",
        )
    ratios = Table("ratio", "times faster")
    for name, value in report.ratios.items():
        ratios.add_row(name, f"{value:.2f}")
    console = Console()
    console.print(table)
    if report.ratios:
        console.print(ratios)


def print_macs(counted: Sequence[Macs]) -> None:
    """Print parameters and MACs of every network."""
    table = Table(
        "model", "long side", "parameters, M", "encoder, G", "16:9, G", "decoder of a click, G"
    )
    for row in counted:
        billions = (row.encoder_square, row.encoder_rectangle, row.decoder)
        table.add_row(
            row.model,
            str(row.long_side),
            f"{row.parameters / 1e6:.1f}",
            *(f"{value / 1e9:.2f}" for value in billions),
        )
    Console().print(table)


def print_live(report: LiveReport) -> None:
    """Print rate and latency of every phase against the goals, and the governor's steps."""
    from maskstream.pipeline.lab.bench.live import GOAL_FPS

    height, width = report.size_hw
    title = f"{report.clip}, {width}x{height} at 30 frames a second, model {report.model}"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for phase in report.phases:
        table.add_column(phase.name)
    for name, values in (
        ("results a second", [f"{p.fps:.1f}" for p in report.phases]),
        ("latency p50, ms", [f"{p.p50_ms:.0f}" for p in report.phases]),
        ("latency p95, ms", [f"{p.p95_ms:.0f}" for p in report.phases]),
        ("latency p99, ms", [f"{p.p99_ms:.0f}" for p in report.phases]),
        ("dropped", [str(p.drops) for p in report.phases]),
        ("keyframes", [str(p.keyframes) for p in report.phases]),
        ("objects, mean", [f"{p.objects:.1f}" for p in report.phases]),
        ("governor's steps", [str(p.level) for p in report.phases]),
        ("memory, MiB", [f"{p.rss_mb:.0f}" for p in report.phases]),
    ):
        table.add_row(name, *values)
    console = Console()
    console.print(table)
    for phase in report.phases:
        reached = phase.p95_ms <= report.deadline_ms and phase.fps >= GOAL_FPS
        console.print(
            f"{phase.name}: p95 {phase.p95_ms:.0f} of {report.deadline_ms:.0f} ms, "
            f"{phase.fps:.1f} of {GOAL_FPS:.0f} a second: {'reached' if reached else 'not reached'}"
        )
    for reason in report.reasons:
        console.print(f"governor: {reason}")


def print_cameras(report: CamerasReport) -> None:
    """Print rate and latency, one column a number of cameras."""
    height, width = report.size_hw
    title = f"{report.clip}, {width}x{height} at 30 frames a second, model {report.model}"
    table = Table(title=title, title_justify="left")
    table.add_column("cameras")
    for row in report.rows:
        table.add_column(str(row.cameras))
    for name, cells in (
        ("results a second, each", [_each(row.fps) for row in report.rows]),
        ("latency p50, ms", [f"{row.p50_ms:.0f}" for row in report.rows]),
        ("latency p95, ms, each", [_each(row.p95_ms, 0) for row in report.rows]),
        ("latency p99, ms", [f"{row.p99_ms:.0f}" for row in report.rows]),
        ("dropped, %", [f"{100 * row.dropped:.1f}" for row in report.rows]),
        ("keyframes a second, each", [_each(row.keyframes_per_s) for row in report.rows]),
        ("objects, all", [f"{row.objects:.1f}" for row in report.rows]),
        ("governor's steps", [f"{row.level} of {row.levels}" for row in report.rows]),
        ("memory, MiB", [f"{row.rss_mb:.0f}" for row in report.rows]),
    ):
        table.add_row(name, *cells)
    Console().print(table)


def _each(values: Sequence[float], digits: int = 1) -> str:
    """The least and the most of what each camera has."""
    least, most = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return least if least == most else f"{least} to {most}"


def print_stream(report: StreamReport) -> None:
    """Print speed and stage times, one column per number of objects."""
    height, width = report.size_hw
    rows = report.rows
    table = Table("objects", *(str(row.objects) for row in rows))
    for name, cells in (
        ("frames a second", [f"{row.fps:.1f}" for row in rows]),
        ("times decoding to RGB", [f"{row.times_decode:.2f}" for row in rows]),
        ("keyframes", [str(row.keyframes) for row in rows]),
        ("ms a propagated frame, median", [f"{row.step_p50_ms:.1f}" for row in rows]),
        ("95 % below", [f"{row.step_p95_ms:.1f}" for row in rows]),
        ("peak MiB so far", [f"{row.peak_mb:.0f}" for row in rows]),
    ):
        table.add_row(name, *cells)
    table.add_section()
    for stage in rows[0].stage_ms:
        table.add_row(f"{stage}, ms a frame", *(f"{row.stage_ms[stage]:.2f}" for row in rows))
    console = Console()
    console.print(
        f"{report.clip}, {width}x{height}, {rows[0].frames} frames, model {report.model}, a "
        f"keyframe every {report.interval} frames. Decoding to RGB alone: {report.decode_ms:.1f} "
        "ms a frame. Stages of different threads overlap."
    )
    console.print(table)
    if report.ms_per_object is not None:
        console.print(f"Each further object: {report.ms_per_object:.2f} ms a frame.")


def print_everything(report: EverythingReport) -> None:
    """Print the head, the hierarchical and the plain grid side by side."""
    from maskstream.pipeline.lab.bench.everything import RECALL_GOAL, SECONDS_GOAL

    table = Table("grid", "prompts", "masks", "seconds", "recall in %")
    rows = {"head": report.head, "hierarchical": report.hierarchical, "plain": report.plain}
    for name, figures in rows.items():
        if figures is None:
            continue
        table.add_row(
            name,
            str(figures.prompts),
            str(figures.masks),
            f"{figures.seconds:.1f}",
            f"{100 * figures.recall:.1f}",
        )
    settings = report.settings
    console = Console()
    console.print(
        f"{report.model}, {settings.coarse_points_per_side}/{settings.fine_points_per_side} points "
        f"a side: predicted IoU from {settings.iou_min}, stability from {settings.stability_min}, "
        f"done above logit {settings.done_logit}\n{report.images} images with {report.objects} "
        "objects"
    )
    console.print(table)
    console.print(
        f"hierarchical: {report.times_faster:.2f} times as fast (goal {SECONDS_GOAL:.0f}), "
        f"{report.recall_lost:.1f} points of recall lost (goal {RECALL_GOAL:.0f})"
    )


def print_rectangle(report: RectangleReport) -> None:
    """Print the agreement of embeddings and masks."""
    (height, width), (side, _) = report.rectangle_hw, report.square_hw
    cosines = Table("cells from the padded border", "cosine, mean", "lowest")
    for band in report.bands:
        name = str(band.first) if band.first == band.last else f"{band.first} to {band.last}"
        cosines.add_row(name, f"{band.mean:.4f}", f"{band.lowest:.4f}")
    masks = Table("prompts", "masks", "mask IoU, mean", "lowest tenth below")
    for kind, agreement in report.masks.items():
        masks.add_row(
            kind,
            str(agreement.masks),
            f"{agreement.mean:.4f}",
            f"{agreement.lowest_tenth:.4f}",
        )
    console = Console()
    console.print(
        f"{report.model}, {width}x{height} against {side}x{side}, {report.images} images: "
        f"cosine of the embedding {report.cosine:.4f}"
    )
    console.print(cosines)
    if report.masks:
        console.print(masks)


def print_store(report: StoreReport) -> None:
    """Print codecs, stores, and their ratios."""
    codecs = Table(
        "scene, objects", "codec", "shuffle", "block", "KiB", "compress ms", "decompress"
    )
    for row in report.codecs:
        codecs.add_row(
            row.scene,
            row.codec,
            row.shuffle,
            row.block,
            f"{row.kib:.1f}",
            f"{row.compress_ms:.2f}",
            f"{row.decompress_ms:.2f}",
        )
    stores = Table(
        "scene, objects", "store", "KiB", "write: own thread", "wall ms", "worst", "read ms"
    )
    for one in report.stores:
        stores.add_row(
            one.scene,
            one.store,
            f"{one.kib:.1f}",
            f"{one.write_cpu_ms:.2f}",
            f"{one.write_ms:.2f}",
            f"{one.worst_ms:.0f}",
            f"{one.read_ms:.2f}",
        )
    ratios = Table("scene, objects", "write time of a chunk per frame, relative")
    for scene, ratio in report.ratios.items():
        ratios.add_row(scene, f"{ratio:.1f}")
    console = Console()
    for table in (codecs, stores, ratios):
        console.print(table)


def print_exports(report: ExportsReport) -> None:
    """Print one row per format, and the formats that were skipped."""
    table = Table(
        "format",
        "files",
        "KiB a frame",
        "CPU ms a frame",
        "lowest IoU",
        title=f"{report.video}, {report.frames} frames, {report.objects} objects",
    )
    for row in report.rows:
        table.add_row(
            row.format, str(row.files), f"{row.kib:.1f}", f"{row.cpu_ms:.0f}", f"{row.iou:.4f}"
        )
    console = Console()
    console.print(table)
    for reason in report.excluded:
        console.print(f"skipped {reason}", highlight=False)


def print_ages(rows: Sequence[AgeRow]) -> None:
    """Print latency and age of results as a table in Markdown, as the documentation has it."""
    for line in (
        "| stream | cores | results a second | latency p50, p95, ms | age p50, p95, ms | behind, s "
        "| dropped | skipped before decoding | governor's steps |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {row.stream} | {row.cores} | {row.fps} | {row.p50_ms:.0f}, {row.p95_ms:.0f} | "
            f"{row.age_p50_ms:.0f}, {row.age_p95_ms:.0f} | {row.behind_s:.2f} | {row.drops} | "
            f"{row.skipped} | {row.level} |"
            for row in rows
        ),
    ):
        typer.echo(line)
