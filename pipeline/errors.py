"""Every error that maskstream raises on purpose. Messages are sentences that say what to do.

MaskstreamError
├── SourceError              the input cannot be read
│   ├── SourceNotFoundError  there is no such file, folder or device
│   └── UnreadableSourceError  it is there, but holds no video that can be decoded
├── ConfigError              a configuration key or value is wrong
├── PromptError              a prompts file or a prompt is wrong
├── ModelError               a model folder or checkpoint is missing or unfit
├── StoreError               the mask store cannot be written or read
│   ├── StoreExistsError     the output is there already
│   ├── StoreLockedError     another process is writing it
│   └── StoreCorruptError    the store's parts contradict each other
├── PageError                the page cannot be served, or not what it is asked for
│   └── SessionNotFoundError  there is no session of this name (any more)
├── MissingExtraError        a part needs a package that is not installed
├── TrainingDataError        training data are missing or malformed
└── QueueClosedError         the other side of a frame queue has ended
"""

from __future__ import annotations


class MaskstreamError(Exception):
    """Base of all errors; the command line prints its sentence without a traceback."""


class SourceError(MaskstreamError):
    """The input cannot be read."""


class SourceNotFoundError(SourceError):
    """There is no such file, folder or device."""


class UnreadableSourceError(SourceError):
    """The input exists but holds no video that can be decoded."""


class ConfigError(MaskstreamError):
    """A configuration key or value is wrong."""


class PromptError(MaskstreamError):
    """A prompts file or a prompt is wrong."""


class ModelError(MaskstreamError):
    """A model folder or checkpoint is missing or unfit."""


class StoreError(MaskstreamError):
    """The mask store cannot be written or read."""


class StoreExistsError(StoreError):
    """The output is there already."""


class StoreLockedError(StoreError):
    """Another process is writing the mask store."""


class StoreCorruptError(StoreError):
    """The store's parts contradict each other."""


class PageError(MaskstreamError):
    """The page cannot be served, or not what it is asked for."""


class SessionNotFoundError(PageError):
    """There is no session of this name on the server (any more)."""


class TrainingDataError(MaskstreamError):
    """Training data are missing or malformed."""


class QueueClosedError(MaskstreamError):
    """The other side of a frame queue has ended."""


class MissingExtraError(MaskstreamError):
    """A part needs a package that is not installed."""
