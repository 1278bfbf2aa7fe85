"""Export of the video's images beside annotations."""

from __future__ import annotations

from contextlib import ExitStack

import cv2

from maskstream.pipeline.exports.color import rgb_of
from maskstream.pipeline.exports.frames import ExportFrame
from maskstream.pipeline.exports.job import IMAGE_SUFFIX, Exporter, ExportJob, Format
from maskstream.pipeline.exports.output import Output
from maskstream.pipeline.exports.source_video import SourceVideo

_QUALITY = 95


class WithImages:
    """An exporter that also writes each frame as JPEG, named as in its annotations.

    output: contains `wanted.images`, the image folder.
    """

    def __init__(self, wanted: Format, job: ExportJob, output: Output) -> None:
        job.names.require("frame")
        self._job = job
        self._output = output
        self._folder = (wanted.images or "").format(source=job.names.source)
        self._source_video = SourceVideo(job)
        with ExitStack() as opening:
            opening.callback(self._source_video.close)
            self._annotations: Exporter = wanted.open(job)
            opening.pop_all()

    def write(self, frame: ExportFrame) -> None:
        """Write the frame's image and its annotations. Raises `OSError`."""
        self._output.put(self._file(frame), self._encode(frame))
        self._annotations.write(frame)

    def finish(self) -> None:
        """Reopen the video to compare. Raises `OSError`."""
        self._annotations.finish()
        self._source_video.close()
        self._source_video = SourceVideo(self._job)

    def check(self, frame: ExportFrame) -> float:
        """The IoU of the annotations; 0 if the image is not as written."""
        try:
            written = (self._output.path / self._file(frame)).read_bytes()
        except OSError:
            return 0.0
        return self._annotations.check(frame) if written == self._encode(frame) else 0.0

    def close(self) -> None:
        """Close all files."""
        self._source_video.close()
        self._annotations.close()

    def _encode(self, frame: ExportFrame) -> bytes:
        rgb = rgb_of(self._source_video.frame(frame), self._source_video.color)
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        return bytes(cv2.imencode(IMAGE_SUFFIX, bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])

    def _file(self, frame: ExportFrame) -> str:
        return f"{self._folder}{self._job.names.of(frame.number)}{IMAGE_SUFFIX}"
