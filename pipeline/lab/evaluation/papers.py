"""The papers' tables: published figures, and rows of the same form for what was measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from maskstream.pipeline.lab.evaluation.images import SIZES
from maskstream.pipeline.lab.evaluation.mask_ap import MaskApReport
from maskstream.pipeline.lab.evaluation.prompted import ALL, PromptedReport
from maskstream.pipeline.lab.evaluation.wild import WildReport

MEASURED = "measured here"
"""Origin of rows that are not published."""

_TINY_SAM = "published: TinySAM, arXiv 2312.13789v3"
_TINY_SAM_CODE = "published: github.com/xinghaochen/TinySAM"
_EFFICIENT_VIT_SAM = "published: EfficientViT-SAM, arXiv 2402.05008"
_SURVEY = "published: arXiv 2410.04960"


class Protocol(StrEnum):
    """What the papers measure."""

    MASK_AP = "mask AP from a detector's boxes"
    PROMPTS = "mIoU from ground-truth boxes and clicks"
    WILD = "mean mask AP of segmentation in the wild"


COLUMNS: Mapping[Protocol, tuple[str, ...]] = {
    Protocol.MASK_AP: ("ap", "ap_small", "ap_medium", "ap_large"),
    Protocol.PROMPTS: (
        *("box", "box_small", "box_medium", "box_large"),
        *("click1", "click1_small", "click1_medium", "click1_large"),
        *("click3", "click5"),
    ),
    Protocol.WILD: ("ap",),
}
"""Columns of each protocol's table."""


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A row of a table.

    data: images, and boxes if they are a detector's. origin: `MEASURED`, or where it was published.
    values: percent by column; what a paper does not say is omitted.
    """

    protocol: Protocol
    data: str
    model: str
    origin: str
    values: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "protocol": self.protocol.value,
            "data": self.data,
            "model": self.model,
            "origin": self.origin,
            "values": dict(self.values),
        }


def mask_ap_row(report: MaskApReport, data: str) -> PaperRow:
    """The row of a measured mask AP."""
    values = {column: report.values.get(column) for column in COLUMNS[Protocol.MASK_AP]}
    return _measured(Protocol.MASK_AP, f"{data}, {report.images} images", report.model, values)


def prompted_row(report: PromptedReport, data: str) -> PaperRow:
    """The row of a measured mIoU."""
    values = {
        column: report.values[prompt].get(size or ALL)
        for column in COLUMNS[Protocol.PROMPTS]
        for prompt, _, size in [column.partition("_")]
    }
    where = f"{data}, {report.images} images, {report.objects[ALL]} objects"
    return _measured(Protocol.PROMPTS, where, report.model, values)


def wild_row(report: WildReport, data: str) -> PaperRow:
    """The row of a measured mean AP over sets."""
    where = f"{data}, {len(report.sets)} sets, {report.images} images"
    return _measured(Protocol.WILD, where, report.model, {"ap": report.mean_ap})


def _measured(
    protocol: Protocol, data: str, model: str, values: Mapping[str, float | None]
) -> PaperRow:
    percent = {name: round(100 * v, 1) for name, v in values.items() if v is not None}
    return PaperRow(protocol, data, model, MEASURED, percent)


def _mask_ap(
    data: str, origin: str, models: Mapping[str, float | tuple[float, ...]]
) -> list[PaperRow]:
    """Rows of AP by model, or of AP and that of small, medium and large objects."""
    rows = []
    for model, figures in models.items():
        values = figures if isinstance(figures, tuple) else (figures,)
        named = dict(zip(COLUMNS[Protocol.MASK_AP], values, strict=False))
        rows.append(PaperRow(Protocol.MASK_AP, data, model, origin, named))
    return rows


def _prompts(
    data: str,
    origin: str,
    model: str,
    box: float | tuple[float, ...],
    clicks: tuple[float, ...] = (),
    one_click_by_size: tuple[float, ...] = (),
) -> PaperRow:
    """A row of mIoU. box: all, or all, small, medium, large. clicks: 1, 3 and 5."""
    values = dict(zip(("click1", "click3", "click5"), clicks, strict=False))
    boxes = box if isinstance(box, tuple) else (box,)
    values |= dict(zip(COLUMNS[Protocol.PROMPTS][:4], boxes, strict=False))
    values |= {f"click1_{n}": v for n, v in zip(SIZES, one_click_by_size, strict=False)}
    return PaperRow(Protocol.PROMPTS, data, model, origin, values)


_COCO, _LVIS = "COCO val2017", "LVIS v1 val"
_SGINW = "SGinW, 25 sets, GroundingDINO boxes"
_VIT_DET = "ViTDet-H boxes"

PUBLISHED: Sequence[PaperRow] = (
    *_mask_ap(
        f"{_COCO}, {_VIT_DET}",
        _TINY_SAM,
        {
            "SAM ViT-H": (46.6, 30.8, 51.0, 61.7),
            "SAM ViT-L": 46.2,
            "SAM ViT-B": 43.4,
            "FastSAM": 37.9,
            "EfficientSAM-Ti": 42.3,
            "SlimSAM-77": 41.3,
            "MobileSAM": (41.0, 24.4, 44.5, 58.6),
            "TinySAM": (42.3, 26.3, 45.8, 58.8),
            "Q-TinySAM (W8A8)": (41.4, 25.6, 45.1, 57.9),
        },
    ),
    *_mask_ap(
        f"{_COCO}, {_VIT_DET}",
        _TINY_SAM_CODE,
        {"TinySAM": (41.9, 26.0, 45.6, 58.3), "Q-TinySAM (W8A8)": 41.3},
    ),
    *_mask_ap(
        f"{_COCO}, {_VIT_DET}",
        _EFFICIENT_VIT_SAM,
        {
            "SAM ViT-H": 46.5,
            "MobileSAM": 38.7,
            "EdgeSAM": 42.1,
            "EfficientSAM-S": 44.4,
            "EfficientViT-SAM-L0": (45.7, 28.2, 49.5, 63.4),
            "EfficientViT-SAM-L1": 46.2,
            "EfficientViT-SAM-L2": 46.6,
            "EfficientViT-SAM-XL0": 47.5,
            "EfficientViT-SAM-XL1": (47.8, 30.5, 51.8, 64.7),
        },
    ),
    *_mask_ap(
        f"{_COCO}, YOLOv8 boxes",
        _EFFICIENT_VIT_SAM,
        {"SAM ViT-H": 43.8, "EfficientViT-SAM-XL1": 44.7},
    ),
    *_mask_ap(
        f"{_COCO}, GroundingDINO boxes",
        _EFFICIENT_VIT_SAM,
        {"SAM ViT-H": 46.9, "EfficientViT-SAM-XL1": 48.2},
    ),
    *_mask_ap(
        f"{_LVIS}, {_VIT_DET}",
        _TINY_SAM,
        {
            "SAM ViT-H": 44.7,
            "SAM ViT-L": 43.5,
            "SAM ViT-B": 40.8,
            "FastSAM": 34.5,
            "EfficientSAM-Ti": 39.9,
            "SlimSAM-77": 38.3,
            "MobileSAM": 37.0,
            "TinySAM": (38.9, 27.0, 50.3, 60.2),
            "Q-TinySAM (W8A8)": 38.5,
        },
    ),
    *_mask_ap(
        f"{_LVIS}, {_VIT_DET}",
        _TINY_SAM_CODE,
        {"TinySAM": 38.6, "Q-TinySAM (W8A8)": 37.2},
    ),
    *_mask_ap(
        f"{_LVIS}, {_VIT_DET}",
        _EFFICIENT_VIT_SAM,
        {
            "SAM ViT-H": 44.2,
            "MobileSAM": 37.0,
            "EdgeSAM": 39.8,
            "EfficientSAM-S": 41.5,
            "EfficientViT-SAM-L0": 41.8,
            "EfficientViT-SAM-L1": 42.1,
            "EfficientViT-SAM-L2": 42.7,
            "EfficientViT-SAM-XL0": 43.9,
            "EfficientViT-SAM-XL1": 44.4,
        },
    ),
    _prompts(_COCO, _SURVEY, "TinySAM", 73.7),
    _prompts(_COCO, _EFFICIENT_VIT_SAM, "SAM ViT-H", 77.4, (58.4, 69.6, 71.4)),
    _prompts(
        _COCO,
        _EFFICIENT_VIT_SAM,
        "EfficientViT-SAM-XL1",
        (79.9, 75.8, 82.2, 83.7),
        (59.8, 71.3, 75.3),
        (55.0, 63.8, 62.1),
    ),
    _prompts(_LVIS, _EFFICIENT_VIT_SAM, "SAM ViT-H", 77.0, (59.2, 66.0, 66.8)),
    _prompts(
        _LVIS,
        _EFFICIENT_VIT_SAM,
        "EfficientViT-SAM-XL1",
        (79.9, 74.4, 88.4, 91.6),
        (56.6, 67.0, 71.7),
        (47.8, 71.8, 72.4),
    ),
    *(
        PaperRow(Protocol.WILD, _SGINW, model, _EFFICIENT_VIT_SAM, {"ap": ap})
        for model, ap in (("SAM ViT-H", 48.7), ("EfficientViT-SAM-XL1", 48.9))
    ),
)
"""What the papers and their authors' repositories state; none of it was measured here.

The sizes of EfficientViT-SAM's boxes and clicks are those of its repository's README.
"""
