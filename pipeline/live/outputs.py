"""Outputs of a live run that may fail without ending it, as when the disk is full."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from maskstream.pipeline.errors import SinkError
from maskstream.pipeline.types import Frame, FrameResult, Sink

logger = logging.getLogger(__name__)


class Outputs:
    """The named outputs of one run; one that fails is closed, and the run goes on without it.

    strict: it ends with `SinkError` instead. failed: why outputs failed, by name.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.failed: dict[str, str] = {}
        self._strict = strict

    def guard(self, names: Sequence[str], sinks: Sequence[Sink]) -> list[Sink]:
        """Wrap opened sinks, so that their errors are noted here."""
        return [_Output(name, sink, self) for name, sink in zip(names, sinks, strict=True)]

    def note(self, name: str, error: Exception) -> None:
        """Note the failure of an output. Raises `SinkError` if that ends the run."""
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self.failed[name] = reason
        if self._strict:
            raise SinkError(f"the output {name} failed ({reason})") from error
        logger.error("the output %s failed (%s); the run goes on without it", name, reason)


class _Output:
    """A sink that is closed when it fails."""

    def __init__(self, name: str, sink: Sink, outputs: Outputs) -> None:
        self.name = name
        self._sink: Sink | None = sink
        self._outputs = outputs

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Write the result, unless the sink has failed."""
        if self._sink is None:
            return
        try:
            self._sink.write(frame, result)
        except BrokenPipeError:  # the reader of standard output has left: the run ends
            raise
        except Exception as error:
            self._fail(error)

    def idle(self) -> None:
        """Let the sink do what is due, unless it has failed."""
        if self._sink is None:
            return
        try:
            self._sink.idle()
        except Exception as error:
            self._fail(error)

    def close(self, *, complete: bool) -> None:
        """Close the sink, unless it has failed."""
        if self._sink is None:
            return
        try:
            self._sink.close(complete=complete)
        except Exception as error:
            self._sink = None
            self._outputs.note(self.name, error)

    def _fail(self, error: Exception) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            with suppress(Exception):  # the failure is known already
                sink.close(complete=False)
        self._outputs.note(self.name, error)
