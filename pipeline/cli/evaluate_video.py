"""Command `eval video`: evaluate tracking on videos with ground truth, against baselines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.evaluate_shared import compact_table, progress_bar
from maskstream.pipeline.cli.model_options import ModelOptions
from maskstream.pipeline.cli.options import (
    ConfigOption,
    DeviceOption,
    EngineOption,
    ModelOption,
    PresetOption,
    preset_or_config,
)
from maskstream.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from maskstream.pipeline.lab.evaluation.video.baselines import MakeBaseline
    from maskstream.pipeline.lab.evaluation.video.clips import ClipEntry
    from maskstream.pipeline.lab.evaluation.video.evaluate import OnRun
    from maskstream.pipeline.lab.evaluation.video.report import (
        Row,
        SeededReport,
        SeededSequence,
        VideoReport,
    )

_OURS = "maskstream"
_TITLE = "J and F in %: mean, recall, decay; sw: identity switches"


class Prompt(StrEnum):
    """How objects are prompted."""

    MASK = "mask"
    BOX = "box"
    CLICK = "click"


class MemoryPart(StrEnum):
    """What the learned memory can be evaluated without."""

    HEAD = "head"
    JOINT = "joint"
    RECENT = "recent"
    PROPAGATED = "propagated"


def video(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of NAME.mp4 with NAME_masks.npz, of NAME/frames with NAME/masks, or "
            "DAVIS' own (JPEGImages, Annotations)."
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of NAME/NNNNN.png: masks of some frames, for videos in --data without "
            "masks of their own."
        ),
    ] = None,
    generated: Annotated[
        bool, typer.Option("--generated", help="Also run clips rendered with exact masks.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(
            help="With --generated: folder of train/<source>/cutouts (RGBA) or {images,masks} and "
            "backgrounds to render them from; default: generated shapes."
        ),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    config: ConfigOption = None,
    preset: PresetOption = None,
    prompt: Annotated[Prompt, typer.Option(help="How objects are prompted.")] = Prompt.MASK,
    sequences: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these sequences; default: all.")
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Only these baselines; default: all."),
    ] = None,
    no_baselines: Annotated[
        bool, typer.Option("--no-baselines", help="Run only the pipeline.")
    ] = False,
    ablate: Annotated[
        list[MemoryPart] | None,
        typer.Option(help="A part that the learned memory is without; repeatable."),
    ] = None,
    seeded: Annotated[
        bool,
        typer.Option("--seeded", help="Seed objects, no prompts: HOTA and identity switches."),
    ] = False,
    sheets: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write a contact sheet of each clip: ground truth above masks."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute J, F and J&F of objects prompted on their first frame, or HOTA of seeded ones."""
    from maskstream.pipeline.cli.first_use import with_model_folder
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.lab.evaluation.video.evaluate import evaluate_seeded, evaluate_videos

    clips, without_masks = _clips(data, masks, images, sequences, generated=generated)
    chosen_model = ModelOptions(model, device, engine)
    settings = load_config(preset_or_config(preset, config), chosen_model.settings)
    if seeded and (baselines or prompt != Prompt.MASK):
        raise ConfigError("--seeded gives no prompts and has no baselines")
    if seeded and ablate:
        raise ConfigError("--ablate is for prompted objects, not for --seeded")
    if seeded and sheets is not None:
        raise ConfigError("--sheets is for prompted objects, not for --seeded")
    settings = with_model_folder(settings)  # never quantized on the evaluation clips
    chosen = {} if no_baselines or seeded else _baselines(baselines)
    with _progress(len(clips) * (1 + len(chosen)), hidden=as_json) as on_run:
        if seeded:
            found = evaluate_seeded(settings, clips, without_masks=without_masks, on_run=on_run)
        else:
            report = evaluate_videos(
                settings,
                clips,
                prompt=prompt.value,
                baselines=chosen,
                without_masks=without_masks,
                ablate=[part.value for part in ablate or ()],
                sheets=sheets,
                on_run=on_run,
            )
    if as_json:
        typer.echo(json.dumps(found.to_json() if seeded else report.to_json()))
    elif seeded:
        _print_seeded(found)
    else:
        _print_videos(report)


def _clips(
    data: Path | None,
    masks: Path | None,
    images: Path | None,
    sequences: str | None,
    *,
    generated: bool,
) -> tuple[Sequence[ClipEntry], tuple[str, ...]]:
    """Open the clips to run; also return the names of videos without masks."""
    from maskstream.pipeline.lab.evaluation.video.folders import choose_clips, find_clips
    from maskstream.pipeline.lab.evaluation.video.generated import generated_clips
    from maskstream.pipeline.lab.evaluation.video.sprites import FolderImages, SpriteImages

    if data is None and not generated:
        raise ConfigError("give --data FOLDER, or --generated, or both")
    if masks is not None and data is None:
        raise ConfigError("--masks is for the videos of --data")
    if images is not None and not generated:
        raise ConfigError("--images is for --generated")
    clips: tuple[ClipEntry, ...] = ()
    without: tuple[str, ...] = ()
    if data is not None:
        found = find_clips(data, masks)
        clips, without = found.clips, found.without_masks
    if generated:
        drawn_from = SpriteImages() if images is None else FolderImages(images)
        clips = (*clips, *generated_clips(drawn_from))
    if sequences is None:
        return clips, without
    return choose_clips(clips, _names(sequences)), ()


def _baselines(names: str | None) -> dict[str, MakeBaseline]:
    from maskstream.pipeline.lab.evaluation.video.baselines import BASELINES

    if names is None:
        return dict(BASELINES)
    wanted = _names(names)
    unknown = [name for name in wanted if name not in BASELINES]
    if unknown:
        raise ConfigError(
            f"there is no baseline {', '.join(unknown)}; there are {', '.join(BASELINES)}"
        )
    return {name: BASELINES[name] for name in wanted}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@contextmanager
def _progress(total: int, *, hidden: bool) -> Iterator[OnRun]:
    """Show a progress bar over runs; call what it gives with a name before each of them."""
    with progress_bar(total, "runs", hidden=hidden) as advance:
        finished = iter([0])  # before the first run none has finished
        yield lambda name: advance(name, next(finished, 1))
        advance("runs", next(finished, 1))


def _print_videos(report: VideoReport) -> None:
    from rich.console import Console

    table = _table(f"objects prompted by {report.prompt}; {_TITLE}", "sequence", "method")
    for header in ("J&F", "J", "rec", "dec", "F", "rec", "dec", "sw", "fps", "MiB"):
        table.add_column(header, justify="right", no_wrap=True)
    for sequence in report.sequences:
        _add_rows(table, sequence.name, sequence.ours, sequence.baselines)
    _add_rows(table, "overall", report.overall, report.baselines)
    console = Console()
    console.print(table)
    low, high = report.interval
    typer.echo(
        f"J&F: 95 % bootstrap interval over the sequences {100 * low:.1f} to {100 * high:.1f}"
    )
    seen = report.overall.visibility
    typer.echo(
        f"absent objects: a mask on {seen.false_shows} of {seen.absent} frames; "
        f"visible objects: no mask on {seen.blanks} of {seen.visible}"
    )
    _print_skipped(report.skipped)


def _add_rows(table: Table, name: str, ours: Row, baselines: Mapping[str, Row]) -> None:
    for method, row in {_OURS: ours, **baselines}.items():
        shares = [row.jf]
        for measure in (row.j, row.f):
            shares += [measure.mean, measure.recall, measure.decay]
        cells = [f"{100 * share:.1f}" for share in shares]
        effort = (str(row.switches), f"{row.effort.fps:.1f}", f"{row.effort.peak_mb:.0f}")
        table.add_row(name if method == _OURS else "", method, *cells, *effort)
    table.add_section()


def _print_seeded(report: SeededReport) -> None:
    from rich.console import Console

    from maskstream.pipeline.lab.evaluation.video.report import SOON_FRAMES

    table = _table(
        f"no prompts; HOTA, its parts and objects found, in % (soon: in {SOON_FRAMES} frames)",
        "sequence",
    )
    for header in ("HOTA", "DetA", "AssA", "found", "soon", "switches", "fps", "MiB"):
        table.add_column(header, justify="right", no_wrap=True)

    def add(row: SeededSequence) -> None:
        scores = row.scores
        soon = scores.found_within(SOON_FRAMES)
        shares = (scores.hota, scores.detection, scores.association, scores.found, soon)
        cells = [f"{100 * share:.1f}" for share in shares]
        effort = (f"{row.effort.fps:.1f}", f"{row.effort.peak_mb:.0f}")
        table.add_row(row.name, *cells, str(scores.switches), *effort)

    for sequence in report.sequences:
        add(sequence)
    table.add_section()
    add(report.overall)
    Console().print(table)
    _print_skipped(report.skipped)


def _table(title: str, *names: str) -> Table:
    table = compact_table(*names)
    table.title, table.title_justify = title, "left"
    return table


def _print_skipped(names: Sequence[str]) -> None:
    if names:
        typer.echo(f"skipped, without ground-truth masks: {', '.join(names)}")
