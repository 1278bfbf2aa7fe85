"""Runs an export: writes frames of a store in a format, and reads them back to compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import ConfigError, SourceError, StoreError
from maskstream.pipeline.exports.edges import PLAIN, Edges
from maskstream.pipeline.exports.frames import ExportFrame, ExportObject
from maskstream.pipeline.exports.job import Exporter, ExportJob, Format
from maskstream.pipeline.exports.names import NameTemplate, source_name
from maskstream.pipeline.exports.output import Output, open_output
from maskstream.pipeline.exports.registry import find_format
from maskstream.pipeline.exports.selection import choose_objects, choose_rows
from maskstream.pipeline.exports.source_images import WithImages
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.output_paths import PathLike, check_outputs
from maskstream.pipeline.sources.identity import identity_of
from maskstream.pipeline.store import MaskStore
from maskstream.pipeline.types import FrameResult


@dataclass(frozen=True, slots=True)
class ExportChoice:
    """Options of an export, as a user gives them.

    objects: ids and names with commas, None for all. start, end: as in `run`. template: of file
    names, None for the format's own. offset: added to every frame number. video: path of the video,
    None for its path at the run. trust_video: accept another file than the run's. object_edges:
    instead of `edges`, by object id; all smooth over `edges.smooth_frames`. background: as
    for `background_of`. images: also write the video's frames. fps: of images, None for that of the
    run, or 25. keep_start: keep the time of the first frame instead of starting at 0.
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
    object_edges: Mapping[int, Edges] = field(default_factory=dict)
    background: str | None = None
    images: bool = False
    fps: Fraction | None = None
    keep_start: bool = False


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """Summary of an export.

    kept: files of an interrupted export that were valid. worst_iou: lowest IoU of an object as read
    back.
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
    """Write a store's masks to `place`, then read them back and compare.

    on_start: called with the number of frames to process, counting those read back.

    Raises:
        ConfigError: a format, object, frame or template is unknown, an option does not fit the
            format, or the output would replace the store, its video or another input.
        SourceError: the video does not exist, cannot be read, or is another one.
        StoreExistsError: the output exists already.
        StoreError: the store cannot be read, the output cannot be written, or the files differ when
            read back.
    """
    wanted = _Selection.of(store, choice)
    beside = wanted.beside(place)
    check_outputs([place, beside], [store.path, *wanted.inputs()])
    outputs: list[Output] = []
    try:
        if beside is not None:
            outputs.append(open_output(beside, "", wanted.identity(), overwrite=choice.overwrite))
        suffix = wanted.format.suffix
        output = open_output(place, suffix, wanted.identity(), overwrite=choice.overwrite)
        outputs.append(output)
        on_start(2 * len(wanted.rows))
        with closing(wanted.exporter(output, outputs[0])) as exporter:
            for frame in wanted.frames(on_frame):
                exporter.write(frame)
            exporter.finish()
            again = wanted.frames(on_frame)
            worst_iou = _read_back(exporter, again, wanted.format.iou_min, output)
        for each in outputs:
            each.finish()
    except OSError as error:
        _abandon(outputs)
        raise StoreError(f"{place} cannot be written: {error.strerror or error}.") from error
    except BaseException:
        _abandon(outputs)
        raise
    kept = sum(each.kept for each in outputs)
    return ExportSummary(len(wanted.rows), len(wanted.objects), kept, worst_iou)


@dataclass(frozen=True, slots=True)
class _Selection:
    """Export options resolved against a store.

    rows: of the store. numbers: frame numbers in the export. video: path of the video, None if it
    is not needed.
    """

    store: MaskStore
    choice: ExportChoice
    format: Format
    video: Path | None
    rows: range
    objects: tuple[ExportObject, ...]
    numbers: npt.NDArray[np.int64]
    names: NameTemplate

    @classmethod
    def of(cls, store: MaskStore, choice: ExportChoice) -> _Selection:
        """Resolve options against a store. Raises `ConfigError`, `SourceError`, `StoreError`."""
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
        return cls(store, choice, wanted, video, rows, objects, numbers, names)

    def identity(self) -> JsonObject:
        """What determines the files; an interrupted export continues only if it is the same."""
        choice, numbers = self.choice, self.numbers
        identity: JsonObject = {
            "format": choice.format,
            "template": self.names.template,
            "source": self.store.source.name,
            "objects": [[chosen.id, chosen.name] for chosen in self.objects],
            "frames": [int(numbers[0]), int(numbers[-1]), len(numbers)],
        }
        if self.format.takes_edges:
            identity["edges"] = asdict(choice.edges)
            if choice.object_edges:
                identity["object_edges"] = {
                    str(object_id): asdict(edges)
                    for object_id, edges in choice.object_edges.items()
                }
        if self.format.takes_edges or choice.images:
            video = None if self.video is None else str(self.video)
            identity |= {"video": video, "pictures": choice.images}
        return identity

    def inputs(self) -> list[PathLike]:
        """Files that the export must not replace; the source of the masks even if not read."""
        return [self.store.source.name, self.video, self.choice.background]

    def beside(self, place: Path) -> Path | None:
        """The folder of the video's images, if they are not written into `place` itself."""
        if not (self.choice.images and self.format.suffix):
            return None
        return place.with_name(f"{place.stem}_pictures")

    def exporter(self, output: Output, images: Output) -> Exporter:
        """Create the exporter. images: output of the video's images, if they are requested."""
        job = ExportJob(
            output,
            self.store.source,
            self.objects,
            self.numbers,
            self.names,
            self.video,
            _source_frame_count(self.store),
            self.choice.edges,
            self.choice.object_edges,
            self.choice.background,
            self.choice.images,
            self.choice.fps,
            self.choice.keep_start,
            bool(self.store.span.get("deinterlace")),
        )
        if self.choice.images:
            return WithImages(self.format, job, images)
        return self.format.open(job)

    def frames(self, on_frame: Callable[[FrameResult], None]) -> Iterator[ExportFrame]:
        """Yield the frames in order; `on_frame` is called when one has been processed."""
        for i, row in enumerate(self.rows):
            frame = ExportFrame(int(self.numbers[i]), i, self.store.frame(row), self.objects)
            yield frame
            on_frame(frame.result)


def export(
    store: MaskStore | Path | str, place: Path | str, choice: ExportChoice | str
) -> ExportSummary:
    """Export a store's masks to `place`; a short form of `export_store`.

    store: an open store or its path. choice: options, or just a format name. Raises as
    `export_store`.

    >>> export("clip.zarr", "clip.json", "coco").frames  # doctest: +SKIP
    """
    wanted = ExportChoice(choice) if isinstance(choice, str) else choice
    if isinstance(store, MaskStore):
        return export_store(store, Path(place), wanted)
    with MaskStore(store) as opened:
        return export_store(opened, Path(place), wanted)


def _abandon(outputs: list[Output]) -> None:
    for output in outputs:
        output.abandon()


def _read_back(
    exporter: Exporter, frames: Iterator[ExportFrame], iou_min: float, output: Output
) -> float:
    """Lowest IoU of an object as read back. Raises `StoreError` if it is below `iou_min`."""
    worst_iou = 1.0
    for frame in frames:
        read = exporter.check(frame)
        worst_iou = min(worst_iou, read)
        if read < iou_min:
            raise StoreError(
                f"Frame {frame.number} of {output.place}, read back, differs from the mask store: "
                "the disk may be failing, or another program writes there; export again."
            )
    return worst_iou


def _video_for(store: MaskStore, wanted: Format, choice: ExportChoice) -> Path | None:
    """Path of the video, if it is needed. Raises `ConfigError` for options that do not fit.

    A folder of images or a glob pattern counts as a video.
    """
    edges = [choice.edges, *choice.object_edges.values()]
    soft = wanted.takes_edges and any(each.soft for each in edges)
    if choice.edges != PLAIN and not wanted.takes_edges:
        raise ConfigError(
            f"The format {choice.format} takes masks unchanged: omit --edge, --feather, "
            "--grow, --fill-holes, --remove-islands and --smooth."
        )
    if choice.background is not None and not wanted.takes_background:
        raise ConfigError(f"The format {choice.format} has no background: omit --background.")
    if choice.images and wanted.images is None:
        raise ConfigError(f"The format {choice.format} cannot include images: omit --images.")
    if wanted.needs_video or choice.images or soft:
        return Path(store.source.name) if choice.video is None else choice.video
    if choice.video is not None:
        raise ConfigError(
            f"The format {choice.format} contains no pixels of the video: omit --source"
            f"{'' if wanted.images is None else ', or add --images'}."
        )
    return None


def _check_identity(store: MaskStore, video: Path) -> None:
    """Raise `SourceError` if the run's video had other content; a missing file is ignored."""
    stored, found = store.attributes.get("identity"), identity_of(video)
    if stored and found and stored != found:
        raise SourceError(
            f"{video} is not the file that the masks were made from: its content differs. Give "
            "that one with --video; if this is the same video, frame by frame, only re-encoded or "
            "remuxed, add --trust-video."
        )


def _source_frame_count(store: MaskStore) -> int | None:
    """Number of frames of the source, if it was run completely and the number is known."""
    span = store.span
    is_part = span.get("start") is not None or span.get("end") is not None
    return None if is_part or span.get("stride", 1) != 1 else store.source.frame_count


def _check_ids(name: str, wanted: Format, objects: tuple[ExportObject, ...]) -> None:
    too_large = [str(chosen.id) for chosen in objects if chosen.id > wanted.largest_id]
    if too_large:
        raise ConfigError(
            f"The format {name} supports object ids up to {wanted.largest_id}, not "
            f"{', '.join(too_large)}: exclude them with --objects, or use another format."
        )
