"""Exceptions of maskstream. Messages are sentences that say what to do.

MaskstreamError
├── SourceError                   the input cannot be read
│   ├── SourceNotFoundError       there is no such file, folder or device
│   └── UnreadableSourceError     it exists, but has no video that can be decoded
├── ConfigError                   a configuration key or value is wrong
├── PromptError                   a prompts file or a prompt is wrong
├── DetectorError                 a detector, or a file of detections, is unusable
├── ModelError                    a model folder or checkpoint is missing or unusable
├── StoreError                    the mask store cannot be written or read
│   ├── StoreExistsError          the output already exists
│   ├── StoreLockedError          another process is writing it
│   └── StoreCorruptError         the store is damaged or inconsistent
├── SinkError                     an output of a run failed
│   └── SinkHangsError            it takes no results
├── PageError                     the page, or what it requests, cannot be served
│   ├── ServerFullError           a limit of the server is reached
│   └── SessionNotFoundError      there is no session of this name
├── ClusterError                  the cluster of a batch cannot be used
├── MissingExtraError             a feature needs a package that is not installed
├── TrainingDataError             training data are missing or malformed
└── QueueClosedError              the other side of a frame queue has ended
"""

from __future__ import annotations

from maskstream.pipeline.addresses import masked


class MaskstreamError(Exception):
    """Base of all errors; the command line prints the message without a traceback.

    Passwords in addresses are masked in every message.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(masked(arg) if isinstance(arg, str) else arg for arg in args))


class SourceError(MaskstreamError):
    """The input cannot be read."""


class SourceNotFoundError(SourceError):
    """There is no such file, folder or device."""


class UnreadableSourceError(SourceError):
    """The input exists but has no video that can be decoded."""


class ConfigError(MaskstreamError):
    """A configuration key or value is wrong."""


class PromptError(MaskstreamError):
    """A prompts file or a prompt is wrong."""


class DetectorError(MaskstreamError):
    """A detector, or a file of detections, is missing or unusable."""


class ModelError(MaskstreamError):
    """A model folder or checkpoint is missing or unusable."""


class StoreError(MaskstreamError):
    """The mask store cannot be written or read."""


class StoreExistsError(StoreError):
    """The output already exists."""


class StoreLockedError(StoreError):
    """Another process is writing the mask store."""


class StoreCorruptError(StoreError):
    """The mask store is damaged or inconsistent."""


class SinkError(MaskstreamError):
    """An output of a run failed."""


class SinkHangsError(SinkError):
    """An output of a run takes no results, and its thread was left behind."""


class PageError(MaskstreamError):
    """The page, or what it requests, cannot be served."""


class ServerFullError(PageError):
    """A limit of the server is reached: space, sessions or jobs."""


class SessionNotFoundError(PageError):
    """There is no session of this name on the server."""


class TrainingDataError(MaskstreamError):
    """Training data are missing or malformed."""


class ClusterError(MaskstreamError):
    """The cluster of a batch cannot be reached or used."""


class QueueClosedError(MaskstreamError):
    """The other side of a frame queue has ended."""


class MissingExtraError(MaskstreamError):
    """A feature needs a package that is not installed."""
