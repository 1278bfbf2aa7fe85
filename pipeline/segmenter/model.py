"""Segmenter from a model folder: two OpenVINO graphs and `model.yaml`, for one frame size.

This is the whole inference path on the CPU; torch is never imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maskstream.pipeline.errors import ModelError, PromptError
from maskstream.pipeline.segmenter.geometry import GRID_STRIDE, FloatMap, InputGeometry
from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PAD
from maskstream.pipeline.segmenter.openvino_decoder import OpenVinoDecoder
from maskstream.pipeline.types import Frame, SizeHW

Score = Literal["iou", "stability"]


class ModelCard(BaseModel):
    """Contents of `model.yaml`.

    pad_rgb: color that normalizes to zero. cell: as in `InputGeometry`. stretched: frames are
    stretched to the square of the long side. mask_prompts: whether masks can be prompts.
    points_max: maximum of labeled points in a prompt, a box counting as two (None: no limit).
    score: what `Decoded.iou` is, the network's prediction or the stability score in its place.
    everything: settings of
    everything mode that differ from the published ones (`segmenter.everything.TINYSAM`).
    encoder_work: estimated work of a megapixel of input in the budget of keyframes
    (`tracking.schedule`). accuracy, speed, versions: as measured when the folder was made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str
    long_side: int
    multiple: int
    pad_rgb: tuple[int, int, int]
    cell: int = GRID_STRIDE
    stretched: bool = False
    mask_prompts: bool = True
    points_max: int | None = None
    score: Score = "iou"
    method: str
    source: str = ""
    calibration: dict[str, Any] = {}
    accuracy: dict[str, float] = {}
    speed: dict[str, float] = {}
    everything: dict[str, float] = {}
    encoder_work: float = 300.0
    kept_in_fp32: list[str] = Field([], alias="kept_in_float")
    versions: dict[str, str] = {}

    def fit(self, frame_hw: SizeHW, share: float = 1.0) -> InputGeometry:
        """Geometry of a frame in the network's input; share: of its long side, rounded."""
        long_side = self.multiple * max(1, round(share * self.long_side / self.multiple))
        return InputGeometry.fit(
            frame_hw, long_side, self.multiple, self.cell, stretched=self.stretched
        )

    def decoded(self, masks: FloatMap, iou: npt.NDArray[np.float32]) -> Decoded:
        """A decoder's answer, with the scores that this model is judged by."""
        return Decoded(masks, stability(masks) if self.score == "stability" else iou)

    def check(self, prompts: PromptBatch) -> None:
        """Raise `PromptError` if the model cannot take the prompts."""
        if prompts.mask is not None and not self.mask_prompts:
            raise PromptError(f"{self.name} takes points and boxes only: leave the mask out")
        if self.points_max is None or not len(prompts):
            return
        points = int((prompts.labels != PAD).sum(1).max())
        if points > self.points_max:
            raise PromptError(
                f"{self.name} takes at most {self.points_max} points, a box counting as two, and "
                f"{points} were given: use fewer, or another model"
            )


@dataclass(frozen=True, slots=True)
class Features:
    """Encoder output of one frame: tensors by output name.

    embedding, features_s8, features_s16: [1, C, h, w]. image_tokens, image_sides and, for some
    networks, skip_s4 and skip_s8: [1, n, C], in the decoder's layout.
    """

    tensors: dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """A batch of prompts.

    xy: float32 [B, N, 2] displayed pixels (edges at integers); labels: float32 [B, N] (-1 padding,
    0 negative, 1 positive, 2 and 3 the corners of a box); mask: float32 logits [B, 1, 4h, 4w] or
    None; has_mask: float32 [B] or None for all.
    """

    xy: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    mask: FloatMap | None = None
    has_mask: npt.NDArray[np.float32] | None = None

    @classmethod
    def points(cls, xy: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> PromptBatch:
        """Batch of point prompts [B, N, 2], positive by default, padded as in SAM."""
        points = np.asarray(xy, np.float32)
        batch, count, _ = points.shape
        signs = np.ones((batch, count)) if labels is None else np.asarray(labels)
        return cls(
            np.concatenate([points, np.zeros((batch, 1, 2), np.float32)], 1),
            np.concatenate([signs, np.full((batch, 1), PAD)], 1).astype(np.float32),
        )

    @classmethod
    def boxes(cls, xyxy: npt.ArrayLike) -> PromptBatch:
        """Batch of box prompts xyxy [B, 4]."""
        corners = np.asarray(xyxy, np.float32).reshape(-1, 2, 2)
        labels = np.tile(np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], np.float32), (len(corners), 1))
        return cls(corners, labels)

    def __len__(self) -> int:
        return len(self.xy)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoder output: masks, float32 logits [B, 4, 4h, 4w], and predicted iou, float32 [B, 4].

    iou is the stability score for models whose predicted IoU was not trained (`ModelCard.score`).
    Mask 0 is for an unambiguous prompt; 1..3 are the candidates of a single point.
    """

    masks: FloatMap
    iou: npt.NDArray[np.float32]


class Segmenter(Protocol):
    """Interface of promptable models, set up for one frame size."""

    geometry: InputGeometry
    card: ModelCard

    def encode(self, frame: Frame) -> Features:
        """Encode a frame once."""
        ...

    def decode(self, features: Features, prompts: PromptBatch) -> Decoded:
        """Decode a batch of prompts on encoded features. Raises `PromptError`."""
        ...


def read_card(folder: Path) -> ModelCard:
    """Read and check `model.yaml`. Raises `ModelError`."""
    try:
        return ModelCard.model_validate(yaml.safe_load((folder / "model.yaml").read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ModelError(f"{folder / 'model.yaml'} cannot be used: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What is wrong with a file, on one line."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    keys = [(".".join(str(part) for part in each["loc"]), each["msg"]) for each in error.errors()]
    return "; ".join(f"{key}: {problem}" if key else problem for key, problem in keys)


class OpenVinoSegmenter:
    """A model folder compiled for the CPU and one frame size.

    threads: inference threads. input_share: share of the model's long side. Raises `ModelError` if
    the folder cannot be loaded.
    """

    def __init__(
        self, folder: Path, frame_hw: SizeHW, *, threads: int = 2, input_share: float = 1.0
    ) -> None:
        from maskstream.pipeline.segmenter.openvino_padding import fold_paddings
        from maskstream.pipeline.segmenter.openvino_runtime import cpu_options, ov, reason

        self.card = read_card(folder)
        self.geometry = self.card.fit(frame_hw, input_share)
        core = ov.Core()
        options = cpu_options(threads)
        try:
            encoder = fold_paddings(core.read_model(folder / "encoder.xml"))
            encoder.reshape({"image": [1, *self.geometry.input_hw, 3]})
            self._encoder = core.compile_model(encoder, "CPU", options)
            shapes = {port.any_name: list(port.shape) for port in self._encoder.outputs}
            decoder = core.read_model(folder / "decoder.xml")
            cells = self.geometry.cell_centers()
            self._decoder = OpenVinoDecoder(core, decoder, cells, shapes, options)
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot load the model in {folder}: {reason(error)}"
            ) from error

    def encode(self, frame: Frame) -> Features:
        """Encode a frame of the size this was compiled for."""
        return self.encode_rgb(frame.rgb(self.geometry.valid_hw))

    def encode_rgb(self, rgb: npt.NDArray[np.uint8]) -> Features:
        """Encode an image already scaled to `geometry.valid_hw`, RGB uint8."""
        padded = self.geometry.pad(rgb, self.card.pad_rgb)
        out = self._encoder([padded[None]], share_outputs=True)
        return Features({port.any_name: np.array(value) for port, value in out.items()})

    def decode(self, features: Features, prompts: PromptBatch) -> Decoded:
        """Decode prompts in batches. Raises `PromptError`, as `ModelCard.check`."""
        self.card.check(prompts)
        xy = self.geometry.normalize(prompts.xy)
        masks, iou = self._decoder(
            features.tensors, xy, prompts.labels, prompts.mask, prompts.has_mask
        )
        return self.card.decoded(masks, iou)


def best_of_three(decoded: Decoded) -> npt.NDArray[np.intp]:
    """Index 1..3 of the candidate with the highest predicted IoU for every prompt."""
    best: npt.NDArray[np.intp] = np.argmax(decoded.iou[:, 1:], axis=1) + 1
    return best


def stability(logits: FloatMap, offset: float = 1.0) -> npt.NDArray[np.float32]:
    """SAM's stability score: |logits > +offset| / |logits > -offset| over the last two axes."""
    inner = (logits > offset).sum((-2, -1))
    outer = (logits > -offset).sum((-2, -1))
    return np.asarray(inner / np.maximum(outer, 1), np.float32)
