"""Whole pictures from interlaced ones, by FFmpeg's filter bwdif."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av.error
from av.filter import Graph
from av.video.frame import VideoFrame


def deinterlaced(pictures: Iterable[VideoFrame]) -> Iterator[tuple[VideoFrame, VideoFrame]]:
    """Yield each picture with its deinterlaced one; it depends on the ones beside it.

    The field that is shown first becomes the picture. Progressive pictures are filtered too. Where
    the size or the format changes, filtering starts anew.
    """
    graph: Graph | None = None
    shape: tuple[int, int, str] | None = None
    waiting: deque[VideoFrame] = deque()
    for picture in pictures:
        if graph is None or shape != _shape(picture):
            if graph is not None:
                yield from _pull(graph, waiting, last=True)
            graph, shape = _graph(picture), _shape(picture)
        waiting.append(picture)
        graph.push(picture)
        yield from _pull(graph, waiting)
    if graph is not None:
        yield from _pull(graph, waiting, last=True)


def _shape(picture: VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name


def _graph(picture: VideoFrame) -> Graph:
    graph = Graph()
    buffer = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=picture.time_base or Fraction(1),
    )
    graph.link_nodes(buffer, graph.add("bwdif", "mode=send_frame"), graph.add("buffersink"))
    graph.configure()
    return graph


def _pull(
    graph: Graph, waiting: deque[VideoFrame], *, last: bool = False
) -> Iterator[tuple[VideoFrame, VideoFrame]]:
    if last:
        graph.push(None)
    while waiting:
        try:
            made = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        if isinstance(made, VideoFrame):
            yield waiting.popleft(), made
