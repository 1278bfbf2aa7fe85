"""Example clips: real ones where they are installed, and a generated one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.errors import PageError, SourceNotFoundError
from maskstream.pipeline.sources.demo import demo_clip
from maskstream.pipeline.sources.video_view import ONE_THREAD
from maskstream.pipeline.types import RgbImage

SHAPES_HW = (288, 512)
SHAPES_COUNT = 36
_REAL = {
    "bunny": ("Big Buck Bunny", "bigbuckbunny.mp4"),
    "bikes": ("Bikes", "bikes.mp4"),
    "carphone": ("Car phone", "carphone_pristine.mp4"),
}
_COLORS = ((214, 84, 60), (66, 140, 204), (236, 184, 66))


@dataclass(frozen=True, slots=True)
class Example:
    """An example clip. path: None for the generated one, which is written when it is opened."""

    name: str
    title: str
    path: Path | None


def find_examples() -> list[Example]:
    """List the available examples; the real clips come with the extra `demo`."""
    found = []
    for name, (title, file) in _REAL.items():
        try:
            path = demo_clip(Path("datasets/data") / file)
        except SourceNotFoundError:
            continue
        if path.is_file():
            found.append(Example(name, title, path))
    return [*found, Example("shapes", "Drawn shapes", None)]


def find_example(name: str, folder: Path) -> tuple[Path, str]:
    """Path and title of an example; the generated one is in `folder`. Raises `PageError`."""
    for example in find_examples():
        if example.name == name:
            return example.path or draw_shapes(folder / "shapes.mp4"), example.title
    raise PageError(f"There is no example {name!r} on this server.")


def draw_shapes(path: Path) -> Path:
    """Write the generated clip, unless it exists."""
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}-{threading.get_ident()}.{path.name}")
    with av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "16", "g": "12"})
        stream.height, stream.width = SHAPES_HW
        stream.pix_fmt = "yuv420p"
        for pixels, _ in shapes_frames():
            rgb = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(rgb.reformat(format="yuv420p", **ONE_THREAD)))
        container.mux(stream.encode(None))
    os.replace(part, path)
    return path


def shapes_frames() -> Iterator[tuple[RgbImage, npt.NDArray[np.uint8]]]:
    """Yield frames RGB uint8 [H, W, 3] of the generated clip, and label maps uint8 [H, W]."""
    rng = np.random.default_rng(7)
    height, width = SHAPES_HW
    coarse = rng.integers(70, 120, (10, 16, 3), dtype=np.uint8)
    ground = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = rng.integers(0, 50, (64, 64, 1), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for t in range(SHAPES_COUNT):
        image, truth = ground.copy(), np.zeros(SHAPES_HW, np.uint8)
        for shape, color in enumerate(_COLORS):
            phase = 2 * np.pi * (t / 60 + shape / 3)
            y = height * (0.5 + 0.22 * np.sin(phase))
            x = width * (0.2 + 0.3 * shape + 0.06 * np.cos(phase))
            dy, dx = (rows - y) / 46, (columns - x) / 46
            inside = dy**2 + dx**2 < 1 if shape != 1 else np.maximum(np.abs(dy), np.abs(dx)) < 0.9
            pattern = grain[(rows - int(y))[inside] % 64, (columns - int(x))[inside] % 64]
            image[inside] = np.clip(np.array(color) - 40 + pattern, 0, 255)
            truth[inside] = shape + 1
        yield np.asarray(image, np.uint8), truth
