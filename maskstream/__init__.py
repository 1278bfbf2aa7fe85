"""maskstream: objects in video, followed frame by frame on two CPU cores.

>>> from maskstream import Pipeline, open_source
>>> for result in Pipeline.from_config().stream(open_source("clip.mp4")):  # doctest: +SKIP
...     print(result.index, [found.id for found in result.objects])

All that a user of the library needs is here, and imported when it is first used.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskstream.pipeline.config import PipelineConfig as PipelineConfig
    from maskstream.pipeline.detectors.detector import DetectedBox as DetectedBox
    from maskstream.pipeline.detectors.detector import Detector as Detector
    from maskstream.pipeline.engine.pipeline import Pipeline as Pipeline
    from maskstream.pipeline.engine.pipeline import RunSummary as RunSummary
    from maskstream.pipeline.engine.stills import segment_everything as segment_everything
    from maskstream.pipeline.errors import ClusterError as ClusterError
    from maskstream.pipeline.errors import ConfigError as ConfigError
    from maskstream.pipeline.errors import DetectorError as DetectorError
    from maskstream.pipeline.errors import MaskstreamError as MaskstreamError
    from maskstream.pipeline.errors import MissingExtraError as MissingExtraError
    from maskstream.pipeline.errors import ModelError as ModelError
    from maskstream.pipeline.errors import PageError as PageError
    from maskstream.pipeline.errors import PromptError as PromptError
    from maskstream.pipeline.errors import QueueClosedError as QueueClosedError
    from maskstream.pipeline.errors import ServerFullError as ServerFullError
    from maskstream.pipeline.errors import SessionNotFoundError as SessionNotFoundError
    from maskstream.pipeline.errors import SinkError as SinkError
    from maskstream.pipeline.errors import SinkHangsError as SinkHangsError
    from maskstream.pipeline.errors import SourceError as SourceError
    from maskstream.pipeline.errors import SourceNotFoundError as SourceNotFoundError
    from maskstream.pipeline.errors import StoreCorruptError as StoreCorruptError
    from maskstream.pipeline.errors import StoreError as StoreError
    from maskstream.pipeline.errors import StoreExistsError as StoreExistsError
    from maskstream.pipeline.errors import StoreLockedError as StoreLockedError
    from maskstream.pipeline.errors import TrainingDataError as TrainingDataError
    from maskstream.pipeline.errors import UnreadableSourceError as UnreadableSourceError
    from maskstream.pipeline.exports.export import ExportChoice as ExportChoice
    from maskstream.pipeline.exports.export import export as export
    from maskstream.pipeline.live.cameras import LiveCameras as LiveCameras
    from maskstream.pipeline.live.session import LiveSession as LiveSession
    from maskstream.pipeline.models.open import open_model as open_model
    from maskstream.pipeline.models.predictor import Prediction as Prediction
    from maskstream.pipeline.models.predictor import Predictor as Predictor
    from maskstream.pipeline.prompts import PromptLog as PromptLog
    from maskstream.pipeline.sources import open_source as open_source
    from maskstream.pipeline.store import MaskStore as MaskStore
    from maskstream.pipeline.types import FrameResult as FrameResult
    from maskstream.pipeline.types import ObjectResult as ObjectResult

    __version__: str

_NAMES = {
    "config": "PipelineConfig",
    "detectors.detector": "DetectedBox Detector",
    "engine.pipeline": "Pipeline RunSummary",
    "engine.stills": "segment_everything",
    "errors": "ClusterError ConfigError DetectorError MaskstreamError MissingExtraError ModelError"
    " PageError PromptError QueueClosedError ServerFullError SessionNotFoundError SinkError"
    " SinkHangsError SourceError SourceNotFoundError StoreCorruptError StoreError StoreExistsError"
    " StoreLockedError TrainingDataError UnreadableSourceError",
    "exports.export": "ExportChoice export",
    "live.cameras": "LiveCameras",
    "live.session": "LiveSession",
    "models.open": "open_model",
    "models.predictor": "Prediction Predictor",
    "prompts": "PromptLog",
    "sources": "open_source",
    "store": "MaskStore",
    "types": "FrameResult ObjectResult",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = [
    "ClusterError",
    "ConfigError",
    "DetectedBox",
    "Detector",
    "DetectorError",
    "ExportChoice",
    "FrameResult",
    "LiveCameras",
    "LiveSession",
    "MaskStore",
    "MaskstreamError",
    "MissingExtraError",
    "ModelError",
    "ObjectResult",
    "PageError",
    "Pipeline",
    "PipelineConfig",
    "Prediction",
    "Predictor",
    "PromptError",
    "PromptLog",
    "QueueClosedError",
    "RunSummary",
    "ServerFullError",
    "SessionNotFoundError",
    "SinkError",
    "SinkHangsError",
    "SourceError",
    "SourceNotFoundError",
    "StoreCorruptError",
    "StoreError",
    "StoreExistsError",
    "StoreLockedError",
    "TrainingDataError",
    "UnreadableSourceError",
    "__version__",
    "export",
    "open_model",
    "open_source",
    "segment_everything",
]

if not (Path(__file__).parent / "pipeline").is_dir():
    # A checkout: there the packages lie beside this folder, in a wheel within it.
    __path__.append(str(Path(__file__).parent.parent))


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("maskstream")
        except PackageNotFoundError:  # a checkout that nobody installed
            return "unknown"
    if name not in _HOMES:
        raise AttributeError(f"module 'maskstream' has no attribute '{name}'")
    found = getattr(import_module(f"maskstream.pipeline.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
