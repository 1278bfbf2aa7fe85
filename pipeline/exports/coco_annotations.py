"""Reader of COCO and LVIS instance annotations; masks are decoded lazily.

Polygons and run lengths are decoded by faster-coco-eval (extra `eval`), pixel for pixel as COCO
does. Format: https://cocodataset.org/#format-data, https://www.lvisdataset.org/dataset.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from maskstream.pipeline.errors import SourceError, SourceNotFoundError, UnreadableSourceError
from maskstream.pipeline.types import SizeHW

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image of a COCO or LVIS data set.

    LVIS has `coco_url` instead of `file_name`, and lists categories that were verified absent
    (`neg`) or are not annotated exhaustively (`not_exhaustive`).
    """

    id: int
    height: int
    width: int
    file_name: str = ""
    coco_url: str = ""
    neg_category_ids: tuple[int, ...] = ()
    not_exhaustive_category_ids: tuple[int, ...] = ()

    @property
    def size_hw(self) -> SizeHW:
        """Height and width, pixels."""
        return self.height, self.width

    @property
    def path(self) -> PurePosixPath:
        """Path below the image folder; for LVIS the last two parts of the URL."""
        if self.file_name:
            return PurePosixPath(self.file_name)
        return PurePosixPath(*PurePosixPath(self.coco_url).parts[-2:])


@dataclass(frozen=True, slots=True)
class CocoObject:
    """An annotated object.

    segmentation: polygons [[x, y, x, y, ...], ...] in pixels, or run lengths {"size", "counts"}.
    iscrowd: 1 where it stands for many objects.
    """

    id: int
    image_id: int
    category_id: int = 0
    segmentation: Any = ()
    iscrowd: int = 0
    area: float | None = None

    def mask(self, size_hw: SizeHW) -> npt.NDArray[np.bool_]:
        """Decode to bool [H, W] for an image of this size. Raises `UnreadableSourceError`."""
        height, width = size_hw
        problem = _problem_of(self.segmentation, size_hw)
        if problem is None:
            api = _mask_api()
            try:
                return np.asarray(api.decode(api.segmToRle(self.segmentation, width, height)), bool)
            except (TypeError, ValueError, RuntimeError) as error:
                problem = str(error)
        raise UnreadableSourceError(f"the mask of annotation {self.id} is malformed: {problem}")


@dataclass(frozen=True, slots=True)
class CocoCategory:
    """A category. frequency: LVIS's "r", "c" or "f" (rare, common, frequent)."""

    id: int
    name: str = ""
    frequency: str = ""


@dataclass(frozen=True, slots=True)
class CocoAnnotations:
    """Contents of an annotation file; objects are keyed by image id."""

    images: tuple[CocoImage, ...]
    objects: Mapping[int, tuple[CocoObject, ...]]
    categories: tuple[CocoCategory, ...] = ()

    @property
    def is_lvis(self) -> bool:
        """Whether categories are not verified on every image, as in LVIS."""
        return any(category.frequency for category in self.categories)

    def masked_objects(self, image: CocoImage) -> list[CocoObject]:
        """Objects of an image that have a mask and are not crowds."""
        return [o for o in self.objects.get(image.id, ()) if o.segmentation and not o.iscrowd]

    def crowds(self, image: CocoImage) -> list[CocoObject]:
        """Crowds of an image that have a mask."""
        return [o for o in self.objects.get(image.id, ()) if o.segmentation and o.iscrowd]


def load_coco(file: Path) -> CocoAnnotations:
    """Read instance annotations; masks are checked on decoding. Raises `SourceError`."""
    values = read_json(file)
    if not isinstance(values, dict) or not {"images", "annotations"} <= values.keys():
        raise UnreadableSourceError(f"{file} holds no COCO annotations: no images and annotations")
    images = check_list(CocoImage, values["images"], f"{file}: images")
    objects = check_list(CocoObject, values["annotations"], f"{file}: annotations")
    categories = check_list(CocoCategory, values.get("categories", []), f"{file}: categories")
    by_image: dict[int, list[CocoObject]] = {}
    for item in objects:
        by_image.setdefault(item.image_id, []).append(item)
    grouped = {image: tuple(items) for image, items in by_image.items()}
    return CocoAnnotations(tuple(images), grouped, tuple(categories))


def read_json(file: Path) -> Any:
    """Read a JSON file. Raises `SourceError`."""
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"there is no file {file}") from error
    except OSError as error:
        raise UnreadableSourceError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UnreadableSourceError(f"{file} is not JSON: {error}") from error


def check_list(kind: type[T], values: Any, what: str) -> list[T]:
    """Validate values as dataclasses; unknown keys are ignored. Raises `UnreadableSourceError`."""
    try:
        return TypeAdapter(list[kind]).validate_python(values)  # type: ignore[valid-type]
    except ValidationError as error:
        problem = error.errors()[0]
        where = ": ".join([what, ".".join(map(str, problem["loc"]))]) if problem["loc"] else what
        raise UnreadableSourceError(f"{where}: {problem['msg']}") from error


def encode_masks(masks: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Encode masks [B, H, W] as compressed RLE."""
    columns = np.asfortranarray(masks.transpose(1, 2, 0), np.uint8)
    encoded: list[dict[str, Any]] = _mask_api().encode(columns)
    return encoded


def require_eval_extra(what: str) -> None:
    """Raise `SourceError` unless faster-coco-eval is installed."""
    if find_spec("faster_coco_eval") is None:
        raise SourceError(f"{what} needs faster-coco-eval: pip install 'maskstream[eval]'")


def _mask_api() -> Any:
    require_eval_extra("reading COCO masks")
    from faster_coco_eval.core import mask

    return mask


def _problem_of(segmentation: Any, size_hw: SizeHW) -> str | None:
    """Describe what is malformed in a segmentation, if it can be seen before decoding."""
    if isinstance(segmentation, dict):
        if "counts" not in segmentation or "size" not in segmentation:
            return "run lengths need 'size' and 'counts'"
        if segmentation["size"] != list(size_hw):
            return f"its size is {segmentation['size']}, the image's {list(size_hw)}"
        return None
    if not isinstance(segmentation, list) or not segmentation:
        return "neither polygons nor run lengths"
    if not all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in segmentation):
        return "a polygon has at least three points x, y"
    return None
