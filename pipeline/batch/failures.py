"""Which errors of a task are worth another try."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator

from maskstream.pipeline.batch.tasks import Failure, Outcome
from maskstream.pipeline.errors import MaskstreamError, StoreLockedError

logger = logging.getLogger(__name__)

# Errors of the operating system that say something of the files, not of the moment.
_LASTING = (
    FileExistsError,
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
)
_LASTING_CODES = frozenset({errno.EROFS, errno.EINVAL, errno.ENAMETOOLONG})

# What OpenCV, OpenVINO and ONNX Runtime say, in lower case, when they get no memory.
_NO_MEMORY = (
    "insufficient memory",
    "bad_alloc",
    "failed to allocate memory",
    "could not create a memory",
)


def outcome_of(error: Exception) -> Outcome:
    """The outcome of a task that raised `error`, with a sentence for the report."""
    if _lacks_memory(error):
        return Outcome.failed(Failure.MEMORY, f"The worker is out of memory: {error}.")
    if isinstance(error, MaskstreamError | OSError):
        return Outcome.failed(failure_of(error), str(error))
    logger.error("a task failed in a way that is not expected", exc_info=error)
    return Outcome.failed(Failure.FINAL, f"unexpected {type(error).__name__}: {error}")


def failure_of(error: Exception) -> Failure:
    """Whether an error of a run is final, and if not, of which kind it is."""
    if isinstance(error, StoreLockedError):
        return Failure.BUSY
    causes = list(_causes(error))
    if any(_lacks_memory(cause) for cause in causes):
        return Failure.MEMORY
    system = [cause for cause in causes if isinstance(cause, OSError)]
    lasting = any(isinstance(c, _LASTING) or c.errno in _LASTING_CODES for c in system)
    return Failure.TRANSIENT if system and not lasting else Failure.FINAL


def _lacks_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return not isinstance(error, MaskstreamError) and any(words in text for words in _NO_MEMORY)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
