"""Finds clips: `NAME.mp4` with `NAME_masks.npz`, folders of frames and masks, DAVIS' layout.

Masks of videos may also be in another folder, as `NAME/NNNNN.png`, for some frames only.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskstream.pipeline.errors import ConfigError, SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.lab.evaluation.video.clips import ArrayTruth, Clip, ClipEntry, FileTruth
from maskstream.pipeline.sources.images import SUFFIXES, ImageSequence
from maskstream.pipeline.sources.video import VideoFile

_VIDEOS = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})
_MASKS = "masks"  # name of the array in an npz file
_RESOLUTION = "480p"  # DAVIS' folder between JPEGImages and the sequences; optional


@dataclass(frozen=True, slots=True)
class Found:
    """Clips by name, and the names of videos that have no masks."""

    clips: tuple[ClipEntry, ...]
    without_masks: tuple[str, ...]


def find_clips(root: Path, masks: Path | None = None) -> Found:
    """The clips below `root`.

    masks: a folder of `NAME/NNNNN.png`, for the videos in `root` without masks next to them.

    Raises:
        SourceNotFoundError: a folder does not exist, or `root` has no clip.
    """
    for folder in (root, masks):
        if folder is not None and not folder.is_dir():
            raise SourceNotFoundError(f"there is no folder {folder}")
    clips: list[ClipEntry] = []
    without: list[str] = []
    for entry, name in (*_videos(root, masks), *_folders(root), *_davis(root)):
        if entry is None:
            without.append(name)
        else:
            clips.append(entry)
    if not clips:
        videos = f" ({', '.join(without)} have none)" if without else ""
        raise SourceNotFoundError(
            f"no video with masks in {root}{videos}: it may hold NAME.mp4 with NAME_masks.npz, "
            "NAME/frames with NAME/masks, or JPEGImages and Annotations as DAVIS has them"
        )
    return Found(tuple(sorted(clips, key=lambda c: c.name)), tuple(sorted(without)))


def choose_clips(clips: Sequence[ClipEntry], names: Sequence[str]) -> tuple[ClipEntry, ...]:
    """The clips with these names. Raises `ConfigError` if a name is unknown."""
    by_name = {clip.name: clip for clip in clips}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ConfigError(
            f"there is no sequence {', '.join(unknown)}; there are {', '.join(by_name)}"
        )
    return tuple(by_name[name] for name in dict.fromkeys(names))


_Candidates = Iterator[tuple[ClipEntry | None, str]]


def _videos(root: Path, masks: Path | None) -> _Candidates:
    for video in sorted(root.iterdir()):
        if video.suffix.lower() in _VIDEOS and not video.name.startswith("."):
            arrays = video.with_name(f"{video.stem}_masks.npz")
            entry = None
            if arrays.is_file():
                entry = _video_entry(video, arrays)
            elif masks is not None:
                entry = _apart_entry(video, masks / video.stem)
            yield entry, video.stem


def _folders(root: Path) -> _Candidates:
    for folder in sorted(root.iterdir()):
        if (folder / "frames").is_dir():
            yield _image_entry(folder.name, folder / "frames", folder / "masks"), folder.name


def _davis(root: Path) -> _Candidates:
    frames, masks = (_below_resolution(root / kind) for kind in ("JPEGImages", "Annotations"))
    if frames.is_dir():
        for folder in sorted(p for p in frames.iterdir() if p.is_dir()):
            yield _image_entry(folder.name, folder, masks / folder.name), folder.name


def _below_resolution(folder: Path) -> Path:
    return folder / _RESOLUTION if (folder / _RESOLUTION).is_dir() else folder


def _video_entry(video: Path, masks: Path) -> ClipEntry:
    return ClipEntry(video.stem, lambda: Clip(VideoFile(video), _read_arrays(masks)))


def _apart_entry(video: Path, masks: Path) -> ClipEntry | None:
    files = _mask_files(masks)
    if not files:
        return None
    return ClipEntry(video.stem, lambda: Clip(VideoFile(video), FileTruth(files)))


def _image_entry(name: str, frames: Path, masks: Path) -> ClipEntry | None:
    if not masks.is_dir() or not any(masks.glob("*.png")):
        return None
    return ClipEntry(name, lambda: Clip(ImageSequence(frames), _read_files(frames, masks)))


def _read_arrays(file: Path) -> ArrayTruth:
    try:
        with np.load(file) as arrays:
            if _MASKS not in arrays:
                found = ", ".join(arrays) or "nothing"
                raise UnreadableSourceError(f"{file} holds no array '{_MASKS}' but {found}")
            masks = arrays[_MASKS]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UnreadableSourceError(f"{file} cannot be read: {error}") from error
    if masks.ndim != 3 or masks.dtype not in (np.uint8, np.uint16):
        raise UnreadableSourceError(
            f"'{_MASKS}' of {file} is {masks.dtype} {list(masks.shape)}; masks are uint8 "
            "[frames, height, width]"
        )
    return ArrayTruth(masks)


def _read_files(frames: Path, masks: Path) -> FileTruth:
    images = (file for file in frames.iterdir() if file.suffix.lower() in SUFFIXES)
    numbers = {_number(image) for image in images if not image.name.startswith(".")}
    files = _mask_files(masks)
    alone = sorted(files.keys() - numbers)
    if alone:
        raise UnreadableSourceError(f"{files[alone[0]]} is the mask of a frame that is not there")
    return FileTruth(files)


def _mask_files(masks: Path) -> dict[int, Path]:
    """PNG files by frame, ascending."""
    files = (file for file in masks.glob("*.png") if not file.name.startswith("."))
    return dict(sorted((_number(file), file) for file in files))


def _number(file: Path) -> int:
    if not file.stem.isdecimal():
        raise UnreadableSourceError(f"{file} is not named by its frame's number, like 00012.png")
    return int(file.stem)
