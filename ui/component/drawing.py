"""A frame as the component shows it: with masks and clicks."""

from __future__ import annotations

from dataclasses import replace

import cv2

from maskstream.pipeline.rendering.draw import draw, object_color, scaled
from maskstream.pipeline.types import RgbImage
from maskstream.ui.editing.editor import Editor
from maskstream.ui.editing.entries import Click

_SIDE = 960  # longer side of the image, pixels
_DOT = 5  # radius of a click, pixels
_WHITE = (255, 255, 255)
_BLACK = (0, 0, 0)


def shown_scale(editor: Editor) -> float:
    """Pixels of the image that is shown for a pixel of the video."""
    return _SIDE / max(editor.info.size_hw)


def shown_frame(editor: Editor, index: int) -> RgbImage:
    """A frame with the masks and clicks on it, RGB uint8, small ones enlarged.

    Raises `SourceError`.
    """
    scale = shown_scale(editor)
    height, width = editor.info.size_hw
    size_hw = max(1, round(scale * height)), max(1, round(scale * width))
    image = editor.video.frame(index).rgb(size_hw)
    result = editor.result(index)
    if result is not None:
        objects = tuple(replace(seen, score=min(seen.score, 1.0)) for seen in result.objects)
        image = draw(image, scaled(replace(result, objects=objects), size_hw))
    for known in editor.session.state.objects.values():
        anchor = known.anchors.get(index)
        for click in () if anchor is None else anchor.clicks:
            _dot(image, click, scale, object_color(known.id))
    return image


def _dot(image: RgbImage, click: Click, scale: float, color: tuple[int, int, int]) -> None:
    at = int(click.x * scale), int(click.y * scale)
    cv2.circle(image, at, _DOT + 2, _WHITE if click.label else _BLACK, cv2.FILLED, cv2.LINE_AA)
    cv2.circle(image, at, _DOT, color, cv2.FILLED, cv2.LINE_AA)
    for dx, dy in ((3, 0), (0, 3))[: 1 + click.label]:  # minus or plus
        start, end = (at[0] - dx, at[1] - dy), (at[0] + dx, at[1] + dy)
        cv2.line(image, start, end, _WHITE, 1, cv2.LINE_AA)
