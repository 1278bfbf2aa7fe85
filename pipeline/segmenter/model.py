"""A quantised model: the folder with two OpenVINO graphs and `model.yaml`, compiled for a frame size.

This is the whole inference path on the CPU; torch is never imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ModelError
from pipeline.segmenter.geometry import FloatMap, InputGeometry
from pipeline.types import Frame, SizeHW

PAD, NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = -1, 0, 1, 2, 3
EMBEDDED = Path(__file__).parent.parent / "models"


class ModelCard(BaseModel):
    """Contents of `model.yaml`.

    pad_rgb: colour that normalises to zero. seeding: thresholds that suit this network in
    everything mode. accuracy, speed, versions: as measured when the folder was made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    long_side: int
    multiple: int
    pad_rgb: tuple[int, int, int]
    method: str
    source: str = ""
    calibration: dict[str, Any] = {}
    accuracy: dict[str, float] = {}
    speed: dict[str, float] = {}
    kept_in_float: list[str] = []
    versions: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Features:
    """What the encoder gave for one frame: tensors by output name, each [1, C, h, w]."""

    tensors: dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts decoded together.

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
        """One prompt a row: points [B, N, 2], all positive unless labelled; padded as SAM does."""
        points = np.asarray(xy, np.float32)
        batch, count, _ = points.shape
        signs = np.ones((batch, count)) if labels is None else np.asarray(labels)
        return cls(
            np.concatenate([points, np.zeros((batch, 1, 2), np.float32)], 1),
            np.concatenate([signs, np.full((batch, 1), PAD)], 1).astype(np.float32),
        )

    @classmethod
    def boxes(cls, xyxy: npt.ArrayLike) -> PromptBatch:
        """One box a row, [B, 4]."""
        corners = np.asarray(xyxy, np.float32).reshape(-1, 2, 2)
        labels = np.tile(np.float32([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]), (len(corners), 1))
        return cls(corners, labels)

    def __len__(self) -> int:
        return len(self.xy)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Low-resolution answers: masks float32 logits [B, 4, 4h, 4w], iou float32 [B, 4].

    Mask 0 answers an unambiguous prompt; 1..3 are the candidates of a single point.
    """

    masks: FloatMap
    iou: npt.NDArray[np.float32]


class Segmenter(Protocol):
    """The seam every promptable model stands behind, set up for one frame size."""

    geometry: InputGeometry
    card: ModelCard

    def encode(self, frame: Frame) -> Features:
        """Encode a frame once."""
        ...

    def decode(self, features: Features, prompts: PromptBatch) -> Decoded:
        """Decode a batch of prompts on encoded features."""
        ...


def find_model(name_or_folder: str | Path) -> Path:
    """Folder of an embedded model's name, or the folder itself. Raises `ModelError`."""
    for folder in (Path(name_or_folder), EMBEDDED / str(name_or_folder)):
        if (folder / "model.yaml").is_file():
            return folder
    known = ", ".join(sorted(p.parent.name for p in EMBEDDED.glob("*/model.yaml")))
    raise ModelError(
        f"there is no model '{name_or_folder}': give the name of an embedded model ({known}) or a "
        "folder that holds model.yaml, encoder.xml and decoder.xml"
    )


def read_card(folder: Path) -> ModelCard:
    """Read and check `model.yaml`. Raises `ModelError`."""
    try:
        return ModelCard.model_validate(yaml.safe_load((folder / "model.yaml").read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ModelError(f"{folder / 'model.yaml'} cannot be used: {error}") from error


def content_hash(folder: Path) -> str:
    """Hash (12 hex digits) of a model folder's graphs and weights."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.suffix in {".xml", ".bin"}):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


class OpenVinoSegmenter:
    """A model folder compiled for the CPU and one frame size.

    threads: inference threads. Raises `ModelError` when the folder cannot be loaded.
    """

    def __init__(self, folder: Path, frame_hw: SizeHW, *, threads: int = 2) -> None:
        import openvino as ov

        self.card = read_card(folder)
        self.geometry = InputGeometry.fit(frame_hw, self.card.long_side, self.card.multiple)
        self._cells = self.geometry.cell_centres()
        core = ov.Core()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            encoder = core.read_model(folder / "encoder.xml")
            encoder.reshape({"image": [1, *self.geometry.input_hw, 3]})
            self._encoder = core.compile_model(encoder, "CPU", options)
            decoder = core.read_model(folder / "decoder.xml")
            self._feature_names = [name for port in encoder.outputs for name in port.get_names()]
            self._fix_image_size(decoder)
            self._decoder = core.compile_model(decoder, "CPU", options)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot load the model in {folder}: {error}") from error

    def _fix_image_size(self, decoder: Any) -> None:
        """Fix the decoder's image sizes; the number of prompts and points stays open."""
        h, w = self.geometry.grid_hw
        shapes: dict[str, list[int]] = {
            "xy": [-1, -1, 2],
            "labels": [-1, -1],
            "mask": [-1, 1, h, w],
            "has_mask": [-1],
            "grid": [2, h, w],
        }
        for port in self._encoder.outputs:
            (name,) = port.get_names()
            if any(name in p.get_names() for p in decoder.inputs):
                shapes[name] = list(port.shape)
        decoder.reshape(shapes)

    def encode(self, frame: Frame) -> Features:
        """Encode a frame of the size this was compiled for."""
        return self.encode_rgb(frame.rgb(self.geometry.valid_hw))

    def encode_rgb(self, rgb: npt.NDArray[np.uint8]) -> Features:
        """Encode a picture already scaled to `geometry.valid_hw`, RGB uint8."""
        padded = self.geometry.pad(rgb, self.card.pad_rgb)
        out = self._encoder([padded[None]])
        tensors = {name: np.array(out[i], np.float32) for i, name in enumerate(self._feature_names)}
        return Features(tensors)

    def decode(self, features: Features, prompts: PromptBatch) -> Decoded:
        """Decode a batch of prompts in one call."""
        batch = len(prompts)
        mask, has_mask = prompts.mask, prompts.has_mask
        if mask is None:
            mask = np.zeros((batch, 1, *self.geometry.grid_hw), np.float32)
            has_mask = np.zeros(batch, np.float32)
        elif has_mask is None:
            has_mask = np.ones(batch, np.float32)
        inputs = {
            name: features.tensors[name]
            for port in self._decoder.inputs
            for name in port.get_names()
            if name in features.tensors
        }
        inputs |= {
            "xy": self.geometry.normalise(prompts.xy),
            "labels": prompts.labels,
            "mask": mask,
            "has_mask": has_mask,
            "grid": self._cells,
        }
        out = self._decoder(inputs)
        return Decoded(np.array(out["masks"], np.float32), np.array(out["iou"], np.float32))


def best_of_three(decoded: Decoded) -> npt.NDArray[np.intp]:
    """Index 1..3 of the candidate with the highest predicted IoU for every prompt."""
    return np.argmax(decoded.iou[:, 1:], axis=1) + 1


def stability(logits: FloatMap, offset: float = 1.0) -> npt.NDArray[np.float32]:
    """SAM's stability score: |logits > +offset| / |logits > -offset| over the last two axes."""
    inner = (logits > offset).sum((-2, -1))
    outer = (logits > -offset).sum((-2, -1))
    return (inner / np.maximum(outer, 1)).astype(np.float32)


def stack_prompts(batches: Sequence[PromptBatch]) -> PromptBatch:
    """Join prompts of equal point count and equal mask use into one batch."""
    masks = [b.mask for b in batches if b.mask is not None]
    return PromptBatch(
        np.concatenate([b.xy for b in batches]),
        np.concatenate([b.labels for b in batches]),
        np.concatenate(masks) if masks else None,
    )
