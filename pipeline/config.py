"""Configuration of the pipeline (`configs/*.yaml`): every key, its unit, default and bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.types import WantedDevice, WantedEngine

SHIPPED = Path(__file__).parents[1] / "configs"
"""The default configuration and the presets, commented: `default.yaml`, `fast.yaml` and so on."""

RENAMED_KEYS = {
    "keyframes.shortest": "keyframes.interval_min",
    "keyframes.ahead": "keyframes.lookahead",
    "keyframes.motion": "keyframes.motion_max",
    "tracking.agreement_min": "tracking.association_iou_min",
    "tracking.match_iou_min": "tracking.reentry_box_iou_min",
    "appearance.references": "memory.references",
    "appearance.recent": "memory.recent",
    "appearance.recent_interval_s": "memory.recent_interval_s",
    "appearance.recent_every_s": "memory.recent_interval_s",
    "appearance.max_searches": "memory.max_searches",
    "appearance.sought": "memory.max_searches",
    "seeding.coarse_side": "seeding.coarse_points_per_side",
    "seeding.fine_side": "seeding.fine_points_per_side",
    "live.kept_frames": "live.history_frames",
    "live.retry_most_s": "live.retry_max_s",
}
"""Current names of keys of version 0.1.0."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ThreadsConfig(_Section):
    """Number of threads of each part."""

    decode: int = Field(1, ge=1, le=16)
    inference: int = Field(2, ge=1, le=64)
    opencv: int = Field(1, ge=1, le=16)


class QueueConfig(_Section):
    """The queue between the reader and the engine."""

    capacity: int = Field(4, ge=1, le=256)
    policy: Literal["wait", "drop_oldest", "latest"] = "wait"


class KeyframeConfig(_Section):
    """Which frames are keyframes.

    work: share of a clip's duration (at most 30 frames a second) that a run may take on two cores;
    what regular keyframes leave of it is spent on others (files). 0: regular ones only. need_least,
    need_most: estimated share of a mask that is wrong from which a keyframe is made, with much and
    with little of the budget left.
    """

    interval: int = Field(8, ge=1, le=300)
    work: float = Field(0.45, ge=0, le=16)
    need_least: float = Field(0.03, ge=0)
    need_most: float = Field(0.2, ge=0)
    motion_max: float = Field(0.35, gt=0)
    interval_min: int = Field(4, ge=1, le=300)
    lookahead: int = Field(8, ge=0, le=300)
    cut_residual: float = Field(0.55, gt=0)

    @model_validator(mode="after")
    def _least_is_less(self) -> KeyframeConfig:
        if self.need_least > self.need_most:
            raise ValueError("need_least is not above need_most")
        return self


class TrackingConfig(_Section):
    """Propagation, association and states of tracks. IoUs and scores are 0..1.

    refine: blend masks between two keyframes from both; "auto": where frames may wait (files).
    """

    flow_long_side: int = Field(256, ge=64, le=1024)
    association_iou_min: float = Field(0.5, ge=0, le=1)
    score_min: float = Field(0.4, ge=0, le=1)
    reentry_box_iou_min: float = Field(0.3, ge=0, le=1)
    lost_after_misses: int = Field(3, ge=1)
    remove_after_s: float = Field(5.0, gt=0)
    confirm_hits: int = Field(2, ge=1)
    refine: Literal["auto"] | bool = "auto"


class MemoryConfig(_Section):
    """The learned memory, which recognizes objects on keyframes."""

    references: int = Field(4, ge=1, le=64)
    recent: int = Field(2, ge=0, le=16)
    recent_interval_s: float = Field(0.1, ge=0)
    max_searches: int = Field(3, ge=0, le=64)


class SeedingConfig(_Section):
    """Everything mode in a stream. Areas are shares of the image, scores 0..1.

    proposals: "head", boxes of the objectness head, and points where it is silent; "grid",
    TinySAM's hierarchical grid. box_score_min: least score of a box that becomes a prompt.
    """

    enabled: bool = True
    proposals: Literal["head", "grid"] = "head"
    box_score_min: float = Field(0.25, ge=0, le=1)
    coarse_points_per_side: int = Field(8, ge=1, le=64)
    fine_points_per_side: int = Field(16, ge=1, le=128)
    iou_min: float = Field(0.3, ge=0, le=1)
    stability_min: float = Field(0.0, ge=0, le=1)
    stability_offset: float = Field(0.5, gt=0)
    done_logit: float = 2.0
    area_min: float = Field(0.004, ge=0, le=1)
    area_max: float = Field(0.5, gt=0, le=1)
    overlap_max: float = Field(0.3, ge=0, le=1)
    score_min: float = Field(0.6, ge=0, le=1)
    duplicate_iou: float = Field(0.7, gt=0, le=1)
    prompts_first: int = Field(320, ge=0)
    prompts_per_keyframe: int = Field(16, ge=0)
    max_objects: int = Field(12, ge=0, le=65535)


class DetectorConfig(_Section):
    """A detector whose boxes are prompts on keyframes, or a file of detections.

    every: frames between two runs. start_score: least score of a detection that begins an object.
    sure_score: score from which that object is shown at once; else after `tracking.confirm_hits`
    runs have found it. head, resize, normalize, channels: "auto" as the graph's outputs suggest.
    """

    model: str | None = None
    text: str = ""
    detections: str | None = None
    classes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    every: int = Field(8, ge=1, le=10_000)
    score_min: float = Field(0.25, ge=0, le=1)
    start_score: float = Field(0.4, ge=0, le=1)
    sure_score: float = Field(0.6, ge=0, le=1)
    match_min: float = Field(0.3, gt=0, le=1)
    nms_iou: float = Field(0.7, gt=0, le=1)
    max_objects: int = Field(32, ge=1, le=1000)
    head: Literal["auto", "yolo", "end2end", "detr", "boxes", "ssd"] = "auto"
    resize: Literal["auto", "letterbox", "stretch"] = "auto"
    normalize: Literal["auto", "unit", "imagenet", "none"] = "auto"
    channels: Literal["rgb", "bgr"] = "rgb"

    @property
    def enabled(self) -> bool:
        """Whether anything is to be detected."""
        return bool(self.model or self.text or self.detections)


class StoreConfig(_Section):
    """When results are committed to the store."""

    commit_frames: int = Field(64, ge=1, le=4096)
    commit_s: float = Field(2.0, gt=0)


class LiveConfig(_Section):
    """Deadline of live runs, and handling of slow or broken sources.

    input_shares: of the encoder's input size, descending from 1; each is kept compiled.
    """

    latency_ms: float = Field(150.0, gt=0)
    interval_max: int = Field(32, ge=1, le=300)
    input_shares: tuple[float, ...] = (1.0, 0.75)
    prompts_first: int = Field(96, ge=0)
    history_frames: int = Field(30, ge=1, le=300)
    behind_s: float = Field(2.0, gt=0)
    stall_s: float = Field(3.0, gt=0)
    gap_s: float = Field(1.0, gt=0)
    retry_first_s: float = Field(0.5, gt=0)
    retry_max_s: float = Field(10.0, gt=0)
    hang_s: float = Field(5.0, gt=0)
    stop_s: float = Field(4.0, gt=0)
    close_s: float = Field(30.0, gt=0)
    stamps: Literal["capture", "stream", "ntp"] = "capture"
    frame_id: str = "camera"
    camera_info: str = ""

    @field_validator("input_shares")
    @classmethod
    def _descend_from_one(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if not shares or shares[0] != 1 or list(shares) != sorted({*shares}, reverse=True):
            raise ValueError("the shares descend from 1, for example [1.0, 0.75]")
        if shares[-1] < 0.25:
            raise ValueError("the smallest usable share of the input size is 0.25")
        return shares


class PipelineConfig(_Section):
    """The whole configuration; see `configs/default.yaml`."""

    model: str = "lite"
    device: WantedDevice = "cpu"
    engine: WantedEngine = "auto"
    threads: ThreadsConfig = ThreadsConfig()
    queue: QueueConfig = QueueConfig()
    keyframes: KeyframeConfig = KeyframeConfig()
    tracking: TrackingConfig = TrackingConfig()
    memory: MemoryConfig = MemoryConfig()
    seeding: SeedingConfig = SeedingConfig()
    detector: DetectorConfig = DetectorConfig()
    store: StoreConfig = StoreConfig()
    live: LiveConfig = LiveConfig()

    @property
    def refines(self) -> bool:
        """Whether masks between keyframes are blended: if on, or "auto" and the queue waits."""
        wanted = self.tracking.refine
        return self.queue.policy == "wait" if wanted == "auto" else wanted

    def without_seeding(self) -> PipelineConfig:
        """A copy with seeding disabled: only prompts and detections begin objects."""
        unseeded = self.seeding.model_copy(update={"enabled": False})
        return self.model_copy(update={"seeding": unseeded})


def load_config(file: Path | None = None, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a YAML configuration and apply `section.key=value` overrides. Raises `ConfigError`."""
    values: dict[str, Any] = {}
    if file is not None:
        try:
            loaded = yaml.safe_load(file.read_text())
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} is not YAML: {error}") from error
        if loaded is not None and not isinstance(loaded, dict):
            raise ConfigError(f"{file} must contain keys and values, not {type(loaded).__name__}")
        values = loaded or {}
    return _configured(values, overrides)


def overridden(config: PipelineConfig, overrides: Sequence[str]) -> PipelineConfig:
    """A copy of a configuration with `section.key=value` overrides. Raises `ConfigError`."""
    return _configured(config.model_dump(), overrides)


def _configured(values: dict[str, Any], overrides: Sequence[str]) -> PipelineConfig:
    for override in overrides:
        _apply(values, override)
    try:
        return PipelineConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error)) from error


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"'{override}' is not of the form section.key=value")
    *sections, last = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"'{key}' names a section below '{section}', which is a value")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of '{override}' cannot be read: {error}") from error


def describe(
    error: ValidationError,
    renamed: Mapping[str, str] = RENAMED_KEYS,
    what: str = "the configuration",
) -> str:
    """Describe in one sentence which keys of a configuration, or of something else, are wrong.

    renamed: current names of renamed keys, which are mentioned.
    """
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] != "extra_forbidden":
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{key}: {message}" if key else message)
            continue
        inner = problem["input"] if isinstance(problem["input"], Mapping) else {}
        for name in [f"{key}.{k}" for k in inner if f"{key}.{k}" in renamed] or [key]:
            known = name in renamed
            lines.append(
                f"{name}: its name is {renamed[name]} now" if known else f"{name}: no such key"
            )
    return f"{what} is wrong: " + "; ".join(lines)
