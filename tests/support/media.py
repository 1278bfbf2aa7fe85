"""Tiny videos with exact ground truth, written by PyAV: to read, to compare, to damage."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from maskstream.pipeline.sources.video_view import ONE_THREAD
from maskstream.pipeline.types import Frame, RgbImage, Source, SourceInfo, SourceReport

# QuickTime matrices (a, b, c, d) by the counter-clockwise turn they ask of the player, degrees.
_TURN_MATRICES = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}
_OPTIONS = {"libx264": {"preset": "veryfast", "crf": "4"}, "mpeg4": {"b": "4M"}}


def write_video(
    path: Path,
    frames: Sequence[RgbImage] | RgbImage,
    *,
    rate: int = 25,
    pts: Sequence[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    sample_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB uint8 frames [T, H, W, 3]; the container follows from the suffix of `path`.

    pts: milliseconds (variable frame rate); without them the frames are 1/`rate` s apart.
    rotation: counter-clockwise turn that the player shall apply, degrees (mp4 and mov only).
    """
    time_base = Fraction(1, rate) if pts is None else Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=rate, options={**_OPTIONS.get(codec, {}), **(options or {})}
        )
        stream.pix_fmt = pix_fmt
        stream.height, stream.width = frames[0].shape[:2]
        stream.codec_context.time_base = time_base
        if sample_aspect is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        for index, pixels in enumerate(frames):
            rgb = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = rgb.reformat(format=pix_fmt, **ONE_THREAD)
            frame.pts = index if pts is None else pts[index]
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if rotation:
        _set_rotation(path, rotation)
    return path


def write_images(folder: Path, frames: Sequence[RgbImage] | RgbImage, *, start: int = 0) -> Path:
    """Write RGB uint8 frames [T, H, W, 3] as PNG files, numbered from `start`."""
    folder.mkdir(exist_ok=True)
    for number, pixels in enumerate(frames, start):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return folder


def read(source: Source) -> tuple[SourceInfo, SourceReport, list[Frame]]:
    """Open a source and read all of it."""
    with source.open() as reader:
        return reader.info, reader.report, list(reader)


def write_audio(path: Path, seconds: int = 1) -> Path:
    """Encode silence, with no picture at all."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = np.zeros((1, 8000 * seconds), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def moving_shapes(
    count: int, size_hw: tuple[int, int], shapes: int = 2, seed: int = 0
) -> tuple[RgbImage, NDArray[np.uint8]]:
    """Textured discs and rectangles that swing smoothly over a textured background.

    Returns frames uint8 [count, H, W, 3] and masks uint8 [count, H, W]: 0 is background, n the
    n-th shape; higher numbers lie in front.
    """
    rng = np.random.default_rng(seed)
    height, width = size_hw
    rows, columns = np.mgrid[:height, :width]
    background = _texture(rng, size_hw, low=60, high=120)
    patterns = [_texture(rng, (64, 64), low=0, high=70) for _ in range(shapes)]
    hues = (np.arange(shapes) * 180 // max(shapes, 1)).astype(np.uint8)
    hsv = np.stack([hues, np.full_like(hues, 255), np.full_like(hues, 185)], axis=-1)[None]
    colors = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    phases = rng.uniform(0, 2 * np.pi, (shapes, 2))
    speeds = rng.uniform(0.05, 0.12, (shapes, 2))
    radius = 0.18 * min(height, width)

    frames = np.repeat(background[None], count, axis=0)
    masks = np.zeros((count, height, width), np.uint8)
    for t in range(count):
        for shape in range(shapes):
            swing = 0.5 + 0.3 * np.sin(phases[shape] + speeds[shape] * t)
            y, x = np.rint(swing * (height, width)).astype(int)
            dy, dx = rows - y, columns - x
            inside = (
                dy**2 + dx**2 <= radius**2
                if shape % 2 == 0
                else (np.abs(dy) <= radius) & (np.abs(dx) <= 0.8 * radius)
            )
            pattern = patterns[shape][dy[inside] % 64, dx[inside] % 64]
            frames[t, inside] = colors[shape] // 4 * 3 + pattern
            masks[t, inside] = shape + 1
    return frames, masks


def damage_packets(path: Path, numbers: Iterable[int], intact: float = 0.0) -> Path:
    """Invert the bytes of some packets, counted in the order of the file.

    intact: share of each packet that is left as it is, from its beginning.
    """
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for number in numbers:
        position, size = packets[number]
        damaged = slice(position + int(intact * size), position + size)
        content[damaged] = bytes(byte ^ 0xFF for byte in content[damaged])
    path.write_bytes(content)
    return path


def _texture(rng: np.random.Generator, size_hw: tuple[int, int], low: int, high: int) -> RgbImage:
    height, width = size_hw
    coarse = rng.integers(low, high, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _set_rotation(path: Path, degrees: int) -> None:
    """Write the track's display matrix into the file: PyAV can do so only from version 18 on."""
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd") + 4
    matrix = header + (52 if content[header] == 1 else 40)
    a, b, c, d = (value * 0x10000 for value in _TURN_MATRICES[degrees])
    struct.pack_into(">9i", content, matrix, a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(content)


def write_clip(
    path: Path,
    frames: Sequence[RgbImage] | RgbImage,
    *,
    pts_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    color: tuple[int, int, int, int] = (1, 1, 1, 1),
    sound: str = "aac",
    sound_s: float = 1.0,
) -> Path:
    """Encode RGB uint8 frames [T, H, W, 3] with a tone beside them, at 25 frames a second or VFR.

    color: range, matrix, primaries and transfer, as H.273 numbers them. sound: "" for none.
    """
    color_range, matrix, primaries, transfer = color
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=_OPTIONS.get(codec, {}))
        stream.pix_fmt = pix_fmt
        stream.height, stream.width = frames[0].shape[:2]
        context = stream.codec_context
        context.time_base = Fraction(1, 12800)
        context.color_range, context.colorspace = color_range, matrix
        context.color_primaries, context.color_trc = primaries, transfer
        tone = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        for index, pixels in enumerate(frames):
            rgb = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = rgb.reformat(
                format=pix_fmt,
                dst_colorspace=5 if matrix == 2 else matrix,
                src_color_range=2,
                dst_color_range=color_range or 1,
                **ONE_THREAD,
            )
            frame.colorspace, frame.color_range = matrix, color_range
            ticks = 512 * index if pts_ms is None else pts_ms[index] * 64 // 5
            frame.pts, frame.time_base = ticks, context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            _write_tone(container, tone, sound_s)
    return path


def _write_tone(container, stream, seconds: float) -> None:
    """440 Hz, for which encoders make packets that differ."""
    samples = np.arange(round(48000 * seconds))
    wave = (12000 * np.sin(2 * np.pi * 440 * samples / 48000)).astype(np.int16)
    whole = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    whole.sample_rate, whole.pts, whole.time_base = 48000, 0, Fraction(1, 48000)
    context = stream.codec_context
    resampler = av.AudioResampler(
        context.format, context.layout, context.rate, context.frame_size or None
    )
    for frame in [*resampler.resample(whole), *resampler.resample(None)]:
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
