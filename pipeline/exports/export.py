"""The export itself: frames out of a store, through a format, into files, and back to compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskstream.pipeline.errors import ConfigError, SourceError, StoreError
from maskstream.pipeline.exports.edges import PLAIN, Edges
from maskstream.pipeline.exports.frames import ExportFrame, ExportObject
from maskstream.pipeline.exports.job import Exporter, ExportJob, Format
from maskstream.pipeline.exports.names import NameTemplate, source_name
from maskstream.pipeline.exports.output import Output, open_output
from maskstream.pipeline.exports.registry import find_format
from maskstream.pipeline.exports.selection import choose_objects, choose_rows
from maskstream.pipeline.exports.source_images import WithImages
from maskstream.pipeline.sources.identity import identity_of
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.types import FrameResult


@dataclass(frozen=True, slots=True)
class ExportChoice:
    """What to export and how, as a person says it.

    objects: numbers and names with commas, None for all. start, end: as `run` has them. template:
    of file names, None for the format's own. offset: added to every frame number. video: where the
    pixels are, None for where they were at the run. trust_video: take it although it is another
    file than the run's. background: `background_of` takes it. images: write the video's, too.
    """

    format: str
    objects: str | None = None
    start: str | None = None
    end: str | None = None
    template: str | None = None
    offset: int = 0
    overwrite: bool = False
    video: Path | None = None
    trust_video: bool = False
    edges: Edges = PLAIN
    background: str | None = None
    images: bool = False


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was exported.

    kept: files of a broken-off export that were right. worst_iou: of an object as read back.
    """

    frames: int
    objects: int
    kept: int
    worst_iou: float


def export_store(
    store: MaskStore,
    place: Path,
    choice: ExportChoice,
    *,
    on_start: Callable[[int], None] = lambda _: None,
    on_frame: Callable[[FrameResult], None] = lambda _: None,
) -> ExportSummary:
    """Write a store's masks to `place`, then read all of it back and compare.

    on_start: called with the number of frames to come, which counts those that are read back.

    Raises:
        ConfigError: there is no such format, object, frame or template, or an option does not
            fit the format.
        SourceError: the video is not there, cannot be read, or is another one.
        StoreExistsError: something is there already.
        StoreError: the store cannot be read, the place not be written, or the files, read back,
            are not what they should be.
    """
    wanted = find_format(choice.format)
    video = _video_for(store, wanted, choice)
    if video is not None and not choice.trust_video:
        _check_identity(store, video)
    rows = choose_rows(store, choice.start, choice.end)
    objects = choose_objects(store, choice.objects)
    _check_ids(choice.format, wanted, objects)
    numbers = store.indices[rows.start : rows.stop] + choice.offset
    if numbers[0] < 0:
        raise ConfigError(f"--frame-offset {choice.offset} makes frame numbers negative.")
    names = NameTemplate(choice.template or wanted.template, source_name(store.source.name))
    identity: dict[str, Any] = {
        "format": choice.format,
        "template": names.template,
        "source": store.source.name,
        "objects": [[chosen.id, chosen.name] for chosen in objects],
        "frames": [int(numbers[0]), int(numbers[-1]), len(numbers)],
    }
    if wanted.takes_edges:
        identity["edges"] = asdict(choice.edges)
    if wanted.takes_edges or choice.images:
        identity |= {"video": None if video is None else str(video), "pictures": choice.images}

    def frames() -> Iterator[ExportFrame]:
        for i, row in enumerate(rows):
            frame = ExportFrame(int(numbers[i]), i, store.frame(row), objects)
            yield frame
            on_frame(frame.result)

    outputs: list[Output] = []
    try:
        if choice.images and wanted.suffix:
            beside = place.with_name(f"{place.stem}_pictures")
            outputs.append(open_output(beside, "", identity, overwrite=choice.overwrite))
        output = open_output(place, wanted.suffix, identity, overwrite=choice.overwrite)
        outputs.append(output)
        on_start(2 * len(rows))
        job = ExportJob(
            output,
            store.source,
            objects,
            numbers,
            names,
            video,
            _source_frame_count(store),
            choice.edges,
            choice.background,
            choice.images,
        )
        with closing(
            WithImages(wanted, job, outputs[0]) if choice.images else wanted.open(job)
        ) as exporter:
            for frame in frames():
                exporter.write(frame)
            exporter.finish()
            worst_iou = _read_back(exporter, frames(), wanted.iou_min, output)
        for each in outputs:
            each.finish()
    except OSError as error:
        _abandon(outputs)
        raise StoreError(f"{place} cannot be written: {error.strerror or error}.") from error
    except BaseException:
        _abandon(outputs)
        raise
    return ExportSummary(len(rows), len(objects), sum(each.kept for each in outputs), worst_iou)


def _abandon(outputs: list[Output]) -> None:
    for output in outputs:
        output.abandon()


def _read_back(
    exporter: Exporter, frames: Iterator[ExportFrame], iou_min: float, output: Output
) -> float:
    """The least IoU of an object as read back. Raises `StoreError` if it is below `iou_min`."""
    worst_iou = 1.0
    for frame in frames:
        read = exporter.check(frame)
        worst_iou = min(worst_iou, read)
        if read < iou_min:
            raise StoreError(
                f"Frame {frame.number} of {output.place}, read back, is not what the mask store "
                "has: the disk may be failing, or something else writes there; export again."
            )
    return worst_iou


def _video_for(store: MaskStore, wanted: Format, choice: ExportChoice) -> Path | None:
    """Where the pixels are, if they are needed. Raises `ConfigError` for options that do not fit.

    A folder of pictures or a pattern of their names is a video, too.
    """
    if choice.edges != PLAIN and not wanted.takes_edges:
        raise ConfigError(
            f"The format {choice.format} takes the masks as they are: leave out --edge, --feather, "
            "--grow, --fill-holes, --remove-islands and --smooth."
        )
    if choice.background is not None and not wanted.takes_background:
        raise ConfigError(
            f"The format {choice.format} has no background of its own: leave out --background."
        )
    if choice.images and wanted.images is None:
        raise ConfigError(
            f"The format {choice.format} has no place for pictures: leave out --pictures."
        )
    if wanted.needs_video or choice.images or (wanted.takes_edges and choice.edges.soft):
        return Path(store.source.name) if choice.video is None else choice.video
    if choice.video is not None:
        raise ConfigError(
            f"The format {choice.format} holds no pixels of the video: leave out --source"
            f"{'' if wanted.images is None else ', or add --images'}."
        )
    return None


def _check_identity(store: MaskStore, video: Path) -> None:
    """Raise `SourceError` if the run's video had other content; what is not there is no matter."""
    stored, found = store.attributes.get("identity"), identity_of(video)
    if stored and found and stored != found:
        raise SourceError(
            f"{video} is not the file that the masks were made from: its content differs. Give "
            "that one with --video; if this is the same video, frame by frame, only encoded or "
            "packed anew, add --trust-video."
        )


def _source_frame_count(store: MaskStore) -> int | None:
    """Frames of the source, if all of it was asked for and it said so."""
    span = store.span
    is_part = span.get("start") is not None or span.get("end") is not None
    return None if is_part or span.get("stride", 1) != 1 else store.source.frame_count


def _check_ids(name: str, wanted: Format, objects: tuple[ExportObject, ...]) -> None:
    too_large = [str(chosen.id) for chosen in objects if chosen.id > wanted.largest_id]
    if too_large:
        raise ConfigError(
            f"The format {name} has room for object numbers up to {wanted.largest_id}, not for "
            f"{', '.join(too_large)}: leave them out with --objects, or take another format."
        )
