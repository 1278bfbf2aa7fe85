"""Source of images: folders and numbered sequences."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from maskstream.pipeline.errors import SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.sources.arrays import ArrayView
from maskstream.pipeline.sources.checks import check_size, count_damage, not_permitted
from maskstream.pipeline.sources.film_images import FILM_SUFFIXES, read_film_image
from maskstream.pipeline.sources.position import FrameRange
from maskstream.pipeline.types import Frame, RgbImage, SizeHW, SourceInfo, SourceReport

SUFFIXES = FILM_SUFFIXES | {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}

_PRINTF_NUMBER = re.compile(r"%(?:0(\d+))?d")
_TRAILING_NUMBER = re.compile(r"(\d+)\.[^.]+$")
_HEADER_BYTES = 1 << 16  # of a PNG, up to its image data; ICC profiles come before it
_WEBP_ANIMATION = 2  # flag in the header
_LAST_NUMBER = re.compile(r"(\d+)\D*\.[^.]+$")  # also before `_mask`
_HASHES = re.compile(r"#+")
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class ImageSequence:
    """A source of the images in a folder, or of those that match a pattern.

    path: a folder with one sequence, a pattern (`shots/img_%04d.png`, `shots/img_####.png`), a glob
    (`shots/*.png`) or one image.
    rate: frames per second; without it the frames have no timestamps.

    Frame indices are the numbers at the end of the file names if these are unique; otherwise they
    count from 0 in natural order. The range refers to them. EXIF orientation is applied, 16 bits
    become 8, transparency is dropped.
    """

    path: Path
    rate: Fraction | None = None
    frame_range: FrameRange = field(default_factory=FrameRange)

    @contextmanager
    def open(self) -> Iterator[ImageReader]:
        """List the images and read the first.

        Raises:
            SourceNotFoundError: the path does not exist, or nothing matches the pattern.
            UnreadableSourceError: the folder holds no images, or none of them can be read.
            ConfigError: the range holds none of the images.
        """
        yield ImageReader(self)

    def files(self) -> list[ImageFile]:
        """List the images in the range, in order, without reading them. Raises as `open` does."""
        frame_range = self.frame_range.resolved(self.rate)
        return list(frame_range.select(_list_images(self.path, self.rate)))


class ImageReader:
    """An opened `ImageSequence`: iterate once.

    An image that cannot be read is skipped and counted as a corrupt packet; one of another size
    than the first raises `UnreadableSourceError`.
    """

    def __init__(self, source: ImageSequence) -> None:
        self.report = SourceReport()
        files = source.files()
        self._images = self._read(files)
        self._first = next(self._images, None)
        if self._first is None:
            raise UnreadableSourceError(
                f"None of the {len(files)} images of {source.path} can be read "
                f"({self.report.messages[0]}); they may be damaged or not images."
            )
        file, pixels = self._first
        self._first_path = file.path
        self.info = SourceInfo(
            name=str(source.path),
            size_hw=_size_hw(pixels),
            time_base=file.time_base,
            rate=source.rate,
            frame_count=len(files),
            indices=[file.index for file in files],
            codec=file.path.suffix.lower().lstrip("."),
        )

    def __iter__(self) -> Iterator[Frame]:
        image, self._first = self._first, None
        while image is not None:
            file, pixels = image
            if _size_hw(pixels) != self.info.size_hw:
                raise UnreadableSourceError(
                    f"{file.path} is {_size_hw(pixels)} pixels (height, width), but "
                    f"{self._first_path} is {self.info.size_hw}; give images of one size."
                )
            self.report.frames += 1
            yield Frame(file.index, file.pts, file.time_base, self.info.size_hw, ArrayView(pixels))
            image = next(self._images, None)

    def _read(self, files: list[ImageFile]) -> Iterator[tuple[ImageFile, RgbImage]]:
        for file in files:
            try:
                pixels = decode_image(file.path)
            except PermissionError as error:
                raise UnreadableSourceError(not_permitted(file.path)) from error
            except (OSError, cv2.error) as error:
                count_damage(self.report, f"{file.path.name} cannot be read: {error}")
                continue
            if pixels is None:
                count_damage(self.report, f"{file.path.name} cannot be decoded as an image")
                continue
            check_size(str(file.path), _size_hw(pixels))
            yield file, pixels


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file of a sequence, not read yet."""

    index: int
    pts: int | None
    time_base: Fraction
    path: Path


def decode_image(path: Path) -> RgbImage | None:
    """Read an image file as RGB uint8 [H, W, 3]; None if it cannot be decoded. Raises `OSError`.

    EXIF orientation is applied, of 16 bits the upper 8 count, transparency is dropped.
    """
    if path.suffix.lower() in FILM_SUFFIXES:
        return read_film_image(path)
    encoded = np.frombuffer(path.read_bytes(), np.uint8)  # `cv2.imread` fails on some file names
    if encoded.size == 0:
        return None
    bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _size_hw(pixels: RgbImage) -> SizeHW:
    return pixels.shape[0], pixels.shape[1]


def _list_images(path: Path, rate: Fraction | None) -> list[ImageFile]:
    """Find, sort and number the images of `path`."""
    paths, number = _find(path)
    numbers = [int(match[1]) for file in paths if (match := number.search(file.name))]
    if len(set(numbers)) == len(paths):
        ordered = sorted(zip(numbers, paths, strict=True))
    else:
        ordered = list(enumerate(sorted(paths, key=_natural_key)))
    time_base = 1 / rate if rate else Fraction(1)
    return [
        ImageFile(index, position if rate else None, time_base, file)
        for position, (index, file) in enumerate(ordered)
    ]


def _find(path: Path) -> tuple[list[Path], re.Pattern[str]]:
    """Paths of the images, and a pattern whose group 1 is the number in their names."""
    if path.is_dir():
        images = _images_in(path)
        if not images:
            raise UnreadableSourceError(
                f"{path} holds no images; images end in {', '.join(sorted(SUFFIXES))}."
            )
        _check_one_sequence(path, images)
        return images, _TRAILING_NUMBER
    if path.is_file():
        return [path], _TRAILING_NUMBER
    number = _TRAILING_NUMBER
    name = _HASHES.sub(lambda found: f"%0{len(found[0])}d", path.name, count=1)
    if _PRINTF_NUMBER.search(name):
        names = number = _printf_regex(name)
    else:
        names = re.compile(fnmatch.translate(path.name))
    images = [file for file in _images_in(path.parent) if names.match(file.name)]
    if not images:
        raise SourceNotFoundError(f"No image in {path.parent} matches {path.name}.")
    return images, number


def _check_one_sequence(folder: Path, images: list[Path]) -> None:
    """Raise `UnreadableSourceError`, with the choices, if a folder holds several sequences."""
    sequences: dict[tuple[str, str], list[Path]] = {}
    for file in images:
        if match := _LAST_NUMBER.search(file.name):
            about = file.name[: match.start(1)], file.name[match.end(1) :].lower()
            sequences.setdefault(about, []).append(file)
    longer = [files for files in sequences.values() if len(files) > 1]
    if len(longer) > 1:
        choices = ", ".join(f"{_pattern(files)} ({len(files)} images)" for files in sorted(longer))
        raise UnreadableSourceError(
            f"{folder} holds several sequences; give one of them: {choices}."
        )


def _pattern(files: list[Path]) -> str:
    """The pattern of a sequence's names: `shots/img_####.png`, or a glob."""
    numbers = [match for file in files if (match := _LAST_NUMBER.search(file.name))]
    digits = {len(match[1]) for match in numbers}
    wildcard = "#" * digits.pop() if len(digits) == 1 else "*"
    name, first = files[0].name, numbers[0]
    return str(files[0].with_name(name[: first.start(1)] + wildcard + name[first.end(1) :]))


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder, without files with a leading dot, which macOS adds."""
    if not folder.is_dir():
        raise SourceNotFoundError(f"There is no folder {folder}.")
    try:
        files = list(folder.iterdir())
    except PermissionError as error:
        raise UnreadableSourceError(not_permitted(folder)) from error
    return [
        file for file in files if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]


def _printf_regex(name: str) -> re.Pattern[str]:
    """Regular expression of a printf pattern: `img_%04d.png` has at least four digits."""
    before, width, after = _PRINTF_NUMBER.split(name, maxsplit=1)
    digits = f"{{{width},}}" if width else "+"
    return re.compile(rf"{re.escape(before)}(\d{digits}){re.escape(after)}$")


def _natural_key(path: Path) -> list[str | int]:
    """Natural sort key: img2 comes before img10."""
    return [int(part) if part.isdecimal() else part for part in _DIGITS.split(path.name)]


def is_animated(path: Path) -> bool:
    """Whether a file is an animated PNG, which is read as a video.

    Raises:
        UnreadableSourceError: it is an animated WebP.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER_BYTES)
    except OSError:  # opening the source reports it
        return False
    if start.startswith(b"RIFF") and start[8:16] == b"WEBPVP8X" and start[20] & _WEBP_ANIMATION:
        raise UnreadableSourceError(
            f"{path} is an animated WebP, which FFmpeg cannot decode; convert it to an animated "
            "PNG or to a video."
        )
    before_pixels = start.partition(b"IDAT")[0]
    return start.startswith(b"\x89PNG") and b"acTL" in before_pixels
