"""Scores of one image: IoU from a box and from clicks, and what everything mode finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from maskstream.pipeline.config import SeedingConfig
from maskstream.pipeline.lab.evaluation.clicks import first_clicks, next_clicks
from maskstream.pipeline.lab.evaluation.examples import SMALLEST_SHARE, BoolMap, Example
from maskstream.pipeline.objectness.model import ObjectnessModel
from maskstream.pipeline.segmenter.everything import (
    EverythingChoice,
    EverythingSearch,
    find_everything,
)
from maskstream.pipeline.segmenter.found_masks import FoundMasks
from maskstream.pipeline.segmenter.geometry import FloatMap, InputGeometry, boxes_of
from maskstream.pipeline.segmenter.labels import BOX_TOP_LEFT
from maskstream.pipeline.segmenter.model import (
    Decoded,
    Features,
    PromptBatch,
    Segmenter,
    best_of_three,
)
from maskstream.pipeline.segmenter.proposals import Proposal, refine
from maskstream.pipeline.sources.arrays import ArrayView
from maskstream.pipeline.types import Frame, RgbImage, SizeHW
from maskstream.trackers.iou import paired_mask_iou

Ious = npt.NDArray[np.float64]
SegmenterFor = Callable[[SizeHW], Segmenter]
"""Returns the segmenter for an image size."""

DECODED_AT_ONCE = 16
"""Prompts decoded at once where an image may have hundreds: full-size masks in memory."""

MEASURES = ("box", "click1", "click2", "click3", "click5", "oracle3")
CLICKS = 5
FOUND_IOU = 0.7
"""Minimum IoU of a proposal at which everything mode has found an object."""

ZOOM_MEASURES = ("zoom_box_without", "zoom_box", "zoom_click1_without", "zoom_click1")
"""IoU of small objects prompted in the whole image (`_without`), and in a crop around them."""

ZOOM_BELOW = 1 / 4
"""An object is small if the long side of its box is a smaller share of the image's."""

ZOOM_CONTEXT = 2.5
"""Side of the crop as a multiple of the long side of the box."""


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Scores of the P objects of one image.

    ious: [P] by name of `MEASURES`. areas: pixels [P]. found: bool [P], whether everything mode
    found the object, or None if it did not run. zoomed: [S] of the small objects by name of
    `ZOOM_MEASURES`, or None without zoom.
    """

    ious: Mapping[str, Ious]
    areas: npt.NDArray[np.int64]
    found: BoolMap | None
    zoomed: Mapping[str, Ious] | None = None


OnAnswers = Callable[[str, BoolMap, Ious], None]
"""Called with a measure, the predicted masks bool [P, H, W] and their IoU [P]."""


def score_image(
    segmenter: Segmenter,
    example: Example,
    *,
    everything: bool,
    head: ObjectnessModel | None = None,
    zoom: SegmenterFor | None = None,
    on_answers: OnAnswers = lambda *_: None,
) -> ImageScores:
    """Score every object of an example; masks are compared at full size.

    The example must have at least one object. head: proposes boxes in everything mode; None: all
    prompts are points. zoom: returns the segmenter for crops; None: no crops. on_answers: called
    for boxes and for single clicks.
    """
    features = segmenter.encode(frame_of(example.rgb))
    truth = example.masks
    boxes = segmenter.decode(features, PromptBatch.boxes(boxes_of(truth)))
    answers = full_size(segmenter.geometry, boxes.masks[:, 0])
    ious = {"box": paired_mask_iou(answers, truth)}
    on_answers("box", answers, ious["box"])
    ious |= _click_ious(segmenter, features, truth, on_answers)
    found = _found(segmenter, features, truth, head) if everything else None
    zoomed = None if zoom is None else _zoom_ious(segmenter, features, example, ious, zoom)
    return ImageScores(ious, truth.sum((1, 2)), found, zoomed)


def _click_ious(
    segmenter: Segmenter, features: Features, truth: BoolMap, on_answers: OnAnswers
) -> dict[str, Ious]:
    """IoU after 1..`CLICKS` clicks, and of the best of the first click's three masks.

    After the first click the mask with the highest predicted IoU is taken. Later clicks use the
    single-mask output, with the previous mask as mask prompt if the model takes one.
    """
    geometry = segmenter.geometry
    clicks = first_clicks(truth)
    decoded = segmenter.decode(features, PromptBatch.points(clicks.xy, clicks.labels))
    everyone = np.arange(len(truth))
    chosen = best_of_three(decoded)
    logits = decoded.masks[everyone, chosen]
    candidates = np.stack(
        [paired_mask_iou(full_size(geometry, decoded.masks[:, k]), truth) for k in (1, 2, 3)]
    )
    ious = {"click1": candidates[chosen - 1, everyone], "oracle3": candidates.max(0)}
    answers = full_size(geometry, logits)
    on_answers("click1", answers, ious["click1"])
    for count in range(2, CLICKS + 1):
        clicks = clicks.and_then(next_clicks(answers, truth))
        prompts = PromptBatch.points(clicks.xy, clicks.labels)
        if segmenter.card.mask_prompts:
            prompts = replace(prompts, mask=logits[:, None])
        logits = segmenter.decode(features, prompts).masks[:, 0]
        answers = full_size(geometry, logits)
        ious[f"click{count}"] = paired_mask_iou(answers, truth)
    return {name: ious[name] for name in MEASURES if name in ious}


def _zoom_ious(
    segmenter: Segmenter,
    features: Features,
    example: Example,
    ious: Mapping[str, Ious],
    zoom: SegmenterFor,
) -> dict[str, Ious]:
    """IoU of small objects in the whole image and in crops.

    A box prompt is cropped around the box. A click is cropped around the mask it gives in the whole
    image if that mask is small; otherwise that mask is kept.
    """
    rgb, truth = example.rgb, example.masks
    boxes, clicks = boxes_of(truth), first_clicks(truth)
    small = np.flatnonzero(_is_small(boxes, rgb))
    box, click = ious["box"][small], ious["click1"][small]
    again_box, again_click = box.copy(), click.copy()
    if not len(small):
        return dict(zip(ZOOM_MEASURES, (box, again_box, click, again_click), strict=True))
    decoded = segmenter.decode(features, PromptBatch.points(clicks.xy[small], clicks.labels[small]))
    best = best_of_three(decoded)
    first = full_size(segmenter.geometry, decoded.masks[np.arange(len(small)), best])
    around = boxes_of(first)
    crop_too = first.any((1, 2)) & _is_small(around, rgb)
    for row, i in enumerate(small):
        one = truth[i : i + 1]
        prompt = PromptBatch.boxes(boxes[i])
        again_box[row] = paired_mask_iou(_decode_in_crop(zoom, rgb, boxes[i], prompt), one)[0]
        if crop_too[row]:
            prompt = PromptBatch.points(clicks.xy[i : i + 1], clicks.labels[i : i + 1])
            again_click[row] = paired_mask_iou(
                _decode_in_crop(zoom, rgb, around[row], prompt), one
            )[0]
    return dict(zip(ZOOM_MEASURES, (box, again_box, click, again_click), strict=True))


def _is_small(boxes: FloatMap, rgb: RgbImage) -> BoolMap:
    """Which boxes xyxy [B, 4] are of small objects, bool [B]."""
    sides = (boxes[:, 2:] - boxes[:, :2]).max(1)
    return np.asarray(sides < ZOOM_BELOW * max(rgb.shape[:2]))


def _decode_in_crop(
    zoom: SegmenterFor, rgb: RgbImage, box: FloatMap, prompt: PromptBatch
) -> BoolMap:
    """The mask bool [1, H, W] for one prompt, decoded in a square crop around a box xyxy [4]."""
    height, width, _ = rgb.shape
    long_side = (box[2:] - box[:2]).max()
    side = int(np.clip(np.ceil(ZOOM_CONTEXT * long_side), 1, min(height, width)))
    corner = np.rint((box[:2] + box[2:] - side) / 2).astype(int)
    x, y = np.clip(corner, 0, (width - side, height - side))
    segmenter = zoom((side, side))
    features = segmenter.encode(frame_of(np.ascontiguousarray(rgb[y : y + side, x : x + side])))
    inside = replace(prompt, xy=prompt.xy - np.array([x, y], np.float32))
    decoded = segmenter.decode(features, inside)
    is_box = prompt.labels[0, 0] == BOX_TOP_LEFT
    index = 0 if is_box else int(best_of_three(decoded)[0])
    answer = np.zeros((1, height, width), np.bool_)
    answer[:, y : y + side, x : x + side] = full_size(segmenter.geometry, decoded.masks[:, index])
    return answer


def _found(
    segmenter: Segmenter, features: Features, truth: BoolMap, head: ObjectnessModel | None
) -> BoolMap:
    """Whether everything mode finds each object, bool [P]."""
    proposals = _everything(segmenter, features, head)
    flat = truth.reshape(len(truth), -1).astype(np.float32)
    best = np.zeros(len(truth))
    for proposal in proposals:
        mask = full_size(segmenter.geometry, proposal.logits[None]).astype(np.float32).ravel()
        overlap = flat @ mask
        best = np.maximum(best, overlap / (flat.sum(1) + mask.sum() - overlap))
    return best >= FOUND_IOU


def _everything(
    segmenter: Segmenter, features: Features, head: ObjectnessModel | None
) -> Sequence[Proposal]:
    """Everything mode with a head, or both passes of the grid a stream seeds with, and boxes.

    It searches for all evaluated sizes, not only for those that a stream seeds. A segmenter that
    finds all masks when it encodes gives those.
    """
    geometry = segmenter.geometry
    settings = EverythingChoice().settings(segmenter.card)
    if isinstance(features, FoundMasks):
        return find_everything(segmenter, features, settings, "plain")[0]
    if head is not None:
        boxes = head.propose(features, geometry)
        return find_everything(segmenter, features, settings, "head", boxes)[0]
    config = SeedingConfig(area_min=SMALLEST_SHARE, area_max=1)
    search = EverythingSearch(segmenter, features, np.zeros(geometry.grid_hw, bool), config)
    for _ in search.steps():
        pass
    return refine(segmenter, features, search.found())


def chosen_logits(features: Features, decoded: Decoded, *, single_mask: bool = False) -> FloatMap:
    """Low-res logits [B, 4h, 4w] of one mask for each prompt.

    single_mask: the answer for an unambiguous prompt; else the candidate with the highest predicted
    IoU, as the authors of SAM, TinySAM and EfficientViT-SAM evaluate. A segmenter that finds all
    masks when it encodes (FastSAM) has one answer to a prompt, which is taken in any case.
    """
    single = single_mask or isinstance(features, FoundMasks)
    chosen = 0 if single else best_of_three(decoded)
    return np.asarray(decoded.masks[np.arange(len(decoded.masks)), chosen], np.float32)


def frame_of(rgb: RgbImage) -> Frame:
    """An image as a frame."""
    return Frame(0, None, Fraction(1), (rgb.shape[0], rgb.shape[1]), ArrayView(rgb))


def full_size(geometry: InputGeometry, logits: FloatMap) -> BoolMap:
    """Masks [B, H, W] at the frame's size from low-res logits [B, 4h, 4w]."""
    return np.stack([geometry.to_size(m, geometry.frame_hw) > 0 for m in logits])
