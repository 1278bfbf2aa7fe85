"""ONNX files of a model: names of axes, metadata, and the folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx
import yaml

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.onnx_graphs.free_batch import with_free_batch
from maskstream.pipeline.onnx_graphs.operations import OPSET
from maskstream.pipeline.onnx_graphs.translation import AxisNames, to_onnx
from maskstream.pipeline.segmenter.model import ModelCard
from maskstream.pipeline.segmenter.openvino_runtime import ov

_S4 = ("objects", "channels", "height_s4", "width_s4")
_S8 = ("objects", "channels", "height_s8", "width_s8")
_S16 = ("objects", "channels", "height_s16", "width_s16")
_CELLS = ("objects", "cells", "channels")
_PROMPTS: AxisNames = {
    "xy": ("prompts", "points", "coordinates"),
    "labels": ("prompts", "points"),
    "mask": ("prompts", "one", "grid_height", "grid_width"),
    "has_mask": ("prompts",),
    "grid": ("coordinates", "grid_height", "grid_width"),
    "masks": ("prompts", "candidates", "grid_height", "grid_width"),
    "iou": ("prompts", "candidates"),
}
_TOKENS: AxisNames = {
    "image_tokens": ("batch", "tokens", "channels"),
    "image_sides": ("batch", "tokens", "channels"),
    "skip_s4": ("batch", "tokens_s4", "channels"),
    "skip_s8": ("batch", "tokens_s8", "channels"),
}
_ENCODER: AxisNames = {
    "image": ("batch", "height", "width", "colors"),
    "embedding": ("batch", *_S16[1:]),
    "features_s8": ("batch", *_S8[1:]),
    "features_s16": ("batch", *_S16[1:]),
}
AXES: Mapping[str, AxisNames] = {
    "encoder": {**_ENCODER, **_TOKENS},
    "decoder": {**_TOKENS, **_PROMPTS},
    "memory_keys": {
        "s4": _S4,
        "s8": _S8,
        "skip_s8": _S8,
        "s16": _S16,
        "embedding": _S16,
        **dict.fromkeys(("key", "query", "likeness"), _CELLS),
        "features": _S8,
    },
    "memory_values": {
        "features": ("batch", *_S8[1:]),
        "mask": _S4,
        "others": _S4,
        "values": _CELLS,
    },
    "memory_read": {
        "query": ("batch", "queries", "channels"),
        "keys": ("batch", "cells", "channels"),
        "values": ("batch", "cells", "value_channels"),
        "bias": ("batch", "cells"),
        "read": ("batch", "queries", "value_channels"),
    },
    "memory_head": {
        "shared": ("batch", *_S8[1:]),
        "read": _S8,
        "propagated": _S4,
        "beside": _S4,
        "logits": _S4,
        "known": ("objects", "flags"),
        "s4": ("batch", *_S4[1:]),
        "presence": ("objects",),
    },
    "objectness": {**_ENCODER, "boxes_s8": _S8, "boxes_s16": _S16},
}
"""Names of axes by graph and tensor; those of unknown length keep the name in the ONNX file."""

_PIXELS = "uint8 [batch, height, width, 3], RGB, 0 to 255; the graph normalizes. An image is "
_PADDED = "scaled to long_side and padded right and below with pad_rgb to multiples of `multiple`"
_STRETCHED = "stretched to long_side x long_side"
_XY = "float32 [prompts, points, 2], x and y in pixels of the {} image (edges at integers) divided "
_SCORES = {
    "iou": "float32 [prompts, 4], predicted IoU of the masks",
    "stability": "float32 [prompts, 4], not to be used: compute the stability score of the masks, "
    "the area above logit 1 divided by the area above -1",
}
_LAYOUT = {
    "labels": "float32 [prompts, points]: 1 the object, 0 not the object, 2 and 3 corners of a "
    "box, -1 padding; a prompt without a box ends with one point of padding",
    "mask": "float32 [prompts, 1, height / cell, width / cell], logits of an earlier answer",
    "has_mask": "float32 [prompts]: 1 if `mask` is to be used, else 0",
    "grid": "float32 [2, height / cell, width / cell], x and y of the cells' centers in pixels of "
    "the input, divided by long_side",
    "masks": "float32 [prompts, 4, height / cell, width / cell], logits: 0 for a clear prompt, 1 "
    "to 3 the candidates of a single point",
}


INT8_PARTS = frozenset({"encoder"})
"""Graphs that are written in INT8 if that is wanted.

The others are small, and at TensorRT's symmetric ranges an INT8 decoder of `lite` costs more mask
IoU than the encoder does (docs/measurements/models.md).
"""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a model is made of. source: where the weights come from. license: SPDX, or a phrase."""

    source: str
    license: str


def write_onnx_folder(
    graphs: Mapping[str, ov.Model],
    card: ModelCard,
    provenance: Provenance,
    folder: Path,
    *,
    int8: bool,
) -> list[Path]:
    """Write graphs as ONNX files, and `model.yaml`; the folder appears when all are written.

    graphs: by a name of `AXES`. int8: `INT8_PARTS` as Q/DQ. Returns the files. Raises `ModelError`
    as `to_onnx`, and if the folder cannot be written.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        for name, graph in graphs.items():
            if name == "encoder":
                graph = with_free_batch(graph) or graph
            in_int8 = int8 and name in INT8_PARTS
            metadata = metadata_of(name, graph, card, provenance, int8=in_int8)
            made = to_onnx(graph, name, axes=AXES[name], metadata=metadata, int8=in_int8)
            onnx.save(made, part / f"{name}.onnx")
        content = card.model_dump(mode="json", by_alias=True)
        (part / "model.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    except OSError as error:
        raise ModelError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return [folder / f"{name}.onnx" for name in graphs]


def metadata_of(
    name: str, graph: ov.Model, card: ModelCard, provenance: Provenance, *, int8: bool
) -> dict[str, str]:
    """What the ONNX file of a graph says about it: strings, or JSON."""
    tensors = [port.any_name for port in [*graph.inputs, *graph.outputs]]
    return {
        "model": card.name,
        "part": name,
        "precision": "int8" if int8 else "float32",
        "opset": str(OPSET),
        "long_side": str(card.long_side),
        "multiple": str(card.multiple),
        "cell": str(card.cell),
        "pad_rgb": json.dumps(card.pad_rgb),
        "stretched": json.dumps(card.stretched),
        "points_max": json.dumps(card.points_max),
        "mask_prompts": json.dumps(card.mask_prompts),
        "score": card.score,
        "normalization": "in the graph" if "image" in tensors else "none: features, not pixels",
        "layout": json.dumps({key: _layout_of(key, name, card) for key in tensors}),
        "license": provenance.license,
        "source": provenance.source,
        "producer": f"maskstream {version('maskstream')}",
    }


def _layout_of(tensor: str, name: str, card: ModelCard) -> str:
    """What a tensor of a graph holds, with its type and axes."""
    if tensor == "image":
        return _PIXELS + (_STRETCHED if card.stretched else _PADDED)
    if tensor == "xy":
        most = "" if card.points_max is None else f"; at most {card.points_max} points, a box is 2"
        return _XY.format("stretched" if card.stretched else "scaled") + "by long_side" + most
    if tensor == "iou":
        return _SCORES[card.score]
    return _LAYOUT.get(tensor) or f"float32 [{', '.join(AXES[name][tensor])}]"
