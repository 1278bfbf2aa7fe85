"""COCO and LVIS files of shapes whose masks are known to the pixel."""

import json
from pathlib import Path

import cv2
import numpy as np

from maskstream.pipeline.exports.coco_annotations import load_coco
from maskstream.pipeline.lab.evaluation.mask_ap import Detection
from tests.support.media import moving_shapes

SHAPES_HW = (90, 160)


def runs(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, by columns, beginning with those of zeros."""
    flat = np.concatenate([[0], mask.T.ravel(), [0]]).astype(int)
    edges = np.flatnonzero(np.diff(flat))
    lengths = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return lengths[lengths > 0].tolist() if edges[-1] == mask.size else lengths.tolist()


def write_shapes(root: Path) -> Path:
    """Two images of shapes with label maps, and the same masks in `coco.json` and `lvis.json`."""
    frames, masks = moving_shapes(2, SHAPES_HW, shapes=2, seed=1)
    for kind in ("images", "masks"):
        (root / "shapes" / kind).mkdir(parents=True)
    images, objects = [], []
    for number, (frame, labels) in enumerate(zip(frames, masks, strict=True), start=1):
        name = f"{number}.png"
        cv2.imwrite(str(root / "shapes" / "images" / name), frame[..., ::-1])
        cv2.imwrite(str(root / "shapes" / "masks" / name), labels)
        images.append({"id": number, "height": 90, "width": 160, "file_name": name})
        for category in (1, 2):
            mask = labels == category
            rle = {"size": list(SHAPES_HW), "counts": runs(mask)}
            item = {"id": len(objects) + 1, "image_id": number, "category_id": category}
            objects.append({**item, "segmentation": rle, "iscrowd": 0})
    crowd = {"id": 9, "image_id": 1, "category_id": 1, "iscrowd": 1}
    objects.append({**crowd, "segmentation": {"size": list(SHAPES_HW), "counts": [0, 90 * 160]}})
    kinds = [{"id": 1, "name": "disc"}, {"id": 2, "name": "block"}]
    write_json(root / "coco.json", images=images, annotations=objects, categories=kinds)
    at = "http://images.example.org/images/"
    write_json(
        root / "lvis.json",
        images=[
            {"id": i["id"], "height": 90, "width": 160, "coco_url": at + i["file_name"]}
            for i in images
        ],
        annotations=[
            {k: v for k, v in o.items() if k != "iscrowd"} for o in objects if not o["iscrowd"]
        ],
        categories=[k | {"frequency": f} for k, f in zip(kinds, "rf", strict=True)],
    )
    return root


def write_json(file: Path, **values: object) -> Path:
    file.write_text(json.dumps(values))
    return file


def boxes_of(file: Path) -> list[Detection]:
    """The tight boxes of all single objects as detections."""
    read = load_coco(file)
    found = []
    for image in read.images:
        for item in read.masked_objects(image):
            rows, columns = np.nonzero(item.mask(image.size_hw))
            x, y = float(columns.min()), float(rows.min())
            size = (float(columns.max()) + 1 - x, float(rows.max()) + 1 - y)
            found.append(Detection(image.id, item.category_id, (x, y, *size), 0.9))
    return found
