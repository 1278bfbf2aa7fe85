"""Records live results to MCAP files, on the topics of `publishers.foxglove`."""

from __future__ import annotations

from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from maskstream.pipeline.clock import SYSTEM_CLOCK, Clock
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.extras import need
from maskstream.pipeline.live.headers import DEFAULT_HEADERS, Headers
from maskstream.pipeline.live.publishers.foxglove import INSTALL, Topics
from maskstream.pipeline.live.splits import NO_SPLIT, Split
from maskstream.pipeline.types import Frame, FrameResult

FLUSH_S = 1.0
"""How often what was recorded is written out. A kill loses this time, and half a second."""


class McapRecording:
    """A sink that records to new MCAP files.

    path: of the file; one of its name with the time of its start is made where it exists, or where
    the recording is split: `run-20261130T001530.250Z.mcap`. A folder (`runs/`) holds files named by
    that time. So a run that is started again never meets a file of an earlier one. headers, camera:
    as in `Topics`.
    """

    def __init__(
        self,
        path: str,
        headers: Headers = DEFAULT_HEADERS,
        camera: str = "",
        split: Split = NO_SPLIT,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Create the first file. Raises `ConfigError` if that is not possible, `MissingExtraError`.

        split: when to go on in a new file.
        """
        need("foxglove", "recording MCAP", INSTALL)
        if not path:
            raise ConfigError("--publish mcap:FILE needs a file, or a folder that ends in /")
        self._path, self._split, self._clock = path, split, clock
        self._headers, self._camera = headers, camera
        try:
            self._part = self._new_part()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be written: {error}") from error

    @property
    def path(self) -> Path:
        """The file that is being written."""
        return self._part.path

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Record the result. Raises `OSError`, for example if the disk is full."""
        part = self._part
        if self._split.is_due(self._clock.monotonic() - part.begun_s, part.size):
            part.close()
            self._part = self._new_part()
        self._part.log(frame, result)
        self.idle()

    def idle(self) -> None:
        """Write out what is due. Raises `OSError`."""
        self._part.flush_due()

    def close(self, *, complete: bool) -> None:
        """Finish the file. Raises `OSError`."""
        self._part.close()

    def _new_part(self) -> _Part:
        given = Path(self._path)
        if self._path.endswith("/") or given.is_dir():
            given.mkdir(parents=True, exist_ok=True)
            wanted = given / f"{self._now()}.mcap"
        elif self._split != NO_SPLIT or given.exists():
            wanted = given.with_name(f"{given.stem}-{self._now()}{given.suffix}")
        else:
            wanted = given
        return _Part(_create(wanted), self._headers, self._camera, self._clock)

    def _now(self) -> str:
        now = datetime.fromtimestamp(self._clock.unix(), UTC)
        return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z"


class _Part:
    """One file of a recording."""

    def __init__(self, file: _NewFile, headers: Headers, camera: str, clock: Clock) -> None:
        foxglove = need("foxglove", "recording MCAP", INSTALL)
        self.path = file.path
        self.begun_s = self._flushed_s = clock.monotonic()
        self._clock = clock
        self._file = file
        self._context = foxglove.Context()  # kept alive here
        self._writer = foxglove.open_mcap(file, context=self._context)
        self._topics = Topics(foxglove, self._context, headers, camera)

    @property
    def size(self) -> int:
        """Bytes that were written out."""
        return self._file.size

    def log(self, frame: Frame, result: FrameResult) -> None:
        """Record the result. Raises `OSError`."""
        self._topics.log(frame, result)
        self._file.check()

    def flush_due(self) -> None:
        """Write out what was recorded, if that was not done for a while. Raises `OSError`."""
        now_s = self._clock.monotonic()
        if now_s - self._flushed_s >= FLUSH_S:
            self._flushed_s = now_s
            self._writer.flush()
            self._file.check()

    def close(self) -> None:
        """Finish the file. Raises `OSError`."""
        self._topics.close()
        try:
            self._writer.close()
        finally:
            self._file.close()


def _create(wanted: Path) -> _NewFile:
    """Create a file; where it exists, one with the first free number. Raises `OSError`."""
    path, number = wanted, 1
    while True:
        try:
            return _NewFile(path)
        except FileExistsError:
            number += 1
            path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")


class _NewFile:
    """A file that the SDK writes to, and which keeps an error for `check`: the SDK only logs it.

    After an error data are dropped, and positions are those that the file would have.
    """

    def __init__(self, path: Path) -> None:
        """Create the file. Raises `OSError`."""
        self.path = path
        self.size = 0
        self._file = FileIO(path, "xb")
        self._error: OSError | None = None
        self._position = 0

    def write(self, data: bytes) -> int:
        """Write all data."""
        left = memoryview(data)
        try:
            while left and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        self._position += len(data)
        self.size = max(self.size, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position, from the start (0), from here (1) or from the end (2)."""
        self._position = offset + (0, self._position, self.size)[whence]
        if self._error is None:
            self._file.seek(self._position)
        return self._position

    def flush(self) -> None:
        """Nothing to do: no data are buffered."""

    def check(self) -> None:
        """Raise the `OSError` that writing met, if it did."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Close the file. Raises `OSError` if anything is missing in it."""
        self._file.close()
        self.check()
