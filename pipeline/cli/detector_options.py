"""Options of a detector, shared by `run`, `live` and `everything`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskstream.pipeline.errors import ConfigError, DetectorError

if TYPE_CHECKING:
    from maskstream.pipeline.config import DetectorConfig


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """What the command line says of a detector; None: as configured.

    classes, labels: names, separated by commas; labels may be a file.
    """

    detector: str | None = None
    detections: Path | None = None
    text: str | None = None
    classes: str | None = None
    labels: str | None = None
    every: int | None = None

    @property
    def given(self) -> bool:
        """Whether the options ask for detections."""
        return any(each is not None for each in (self.detector, self.detections, self.text))

    @property
    def settings(self) -> list[str]:
        """Configuration overrides, `key=value`."""
        values = {
            "model": _not_empty(self.detector, "--detector takes a file or a folder"),
            "detections": None if self.detections is None else str(self.detections),
            "text": _not_empty(self.text, "--text takes words, for example 'a dog. a red car'"),
            "classes": None if self.classes is None else _names(self.classes, "--classes"),
            "labels": None if self.labels is None else _names(self.labels, "--labels"),
            "every": self.every,
        }
        return [f"detector.{k}={json.dumps(v)}" for k, v in values.items() if v is not None]

    @property
    def inputs(self) -> list[str | Path | None]:
        """Files that are read."""
        file = self.labels if self.labels and Path(self.labels).is_file() else None
        return [self.detector or None, self.detections, file]

    def check(self, configured: DetectorConfig) -> None:
        """Raise `ConfigError` if they say how often a detector runs and none is configured."""
        if self.every is None or configured.model or configured.detections or configured.text:
            return
        raise ConfigError("--every is how often a detector runs: give one with --detector")


NO_DETECTOR = DetectorOptions()


def _not_empty(text: str | None, takes: str) -> str | None:
    if text is not None and not text.strip():
        raise DetectorError(f"{takes}; it is empty")
    return text


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise DetectorError(f"{option} takes names, separated by commas")
    return names
