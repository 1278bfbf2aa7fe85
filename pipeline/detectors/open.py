"""Open the detector of a configuration."""

from __future__ import annotations

import hashlib
from pathlib import Path

from maskstream.pipeline.config import DetectorConfig
from maskstream.pipeline.detectors.detector import ChosenDetections, Detector
from maskstream.pipeline.errors import DetectorError, MissingExtraError


def open_detector(config: DetectorConfig, *, threads: int = 2) -> ChosenDetections | None:
    """Open the configured detector; None if there is none.

    threads: for inference. Raises `DetectorError`, `MissingExtraError`.
    """
    detector = _open(config, threads)
    return None if detector is None else choose(detector, config)


def choose(detector: Detector, config: DetectorConfig) -> ChosenDetections:
    """Reduce a detector to the configured classes and least score. Raises `DetectorError`."""
    return ChosenDetections(detector, config.classes, config.score_min, config.max_objects)


def detector_hash(config: DetectorConfig) -> str:
    """Hash (12 hex digits) of the files that determine what a configured detector finds."""
    digest = hashlib.sha256()
    for given in (config.model, config.detections, *config.labels):
        path = Path(given or "")
        weights = [path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else []
        inside = sorted(path.iterdir()) if given and path.is_dir() else [path, *weights]
        for file in inside:
            if file.is_file():
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]


def _open(config: DetectorConfig, threads: int) -> Detector | None:
    if config.detections is not None:
        if config.model is not None or config.text:
            raise DetectorError(
                "a file of detections and a detector exclude each other: give one of them"
            )
        from maskstream.pipeline.detectors.results_file import FileDetector

        return FileDetector(Path(config.detections), labels=config.labels)
    if config.text:
        from maskstream.pipeline.detectors.text import HOW, TextDetector

        if config.model is None:
            raise MissingExtraError(HOW)
        return TextDetector(Path(config.model), config.text, score_min=config.score_min)
    if config.model is None:
        if config.classes or config.labels:
            raise DetectorError(
                "classes and labels are those of a detector: give --detector or --detections"
            )
        return None
    from maskstream.pipeline.detectors.graph import GraphDetector

    return GraphDetector(
        Path(config.model),
        labels=config.labels,
        score_min=config.score_min,
        nms_iou=config.nms_iou,
        threads=threads,
        head=None if config.head == "auto" else config.head,
        normalize=None if config.normalize == "auto" else config.normalize,
        letterbox=None if config.resize == "auto" else config.resize == "letterbox",
        bgr=config.channels == "bgr",
    )
