"""The formats by name. To add one: an `Exporter`, and an entry here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from pipeline.errors import ConfigError
from pipeline.exports.annotation_tools import Cvat, LabelMe
from pipeline.exports.coco import Coco, CocoVideo
from pipeline.exports.job import Format
from pipeline.exports.label_pictures import LabelPictures, Mattes, YoutubeVos
from pipeline.exports.npz import Npz
from pipeline.exports.tracking_texts import Mot, Mots
from pipeline.exports.yolo import IOU_MIN, Yolo

_BYTE = 255
_BESIDE_VOID = 254  # 255 stands for "not labelled" in DAVIS and YouTube-VOS
_NAMED = "{source}_{frame:06d}"

FORMATS: Mapping[str, Format] = {
    "davis": Format(
        "a PNG with DAVIS' palette a frame",
        LabelPictures.davis,
        template="{frame:05d}",
        largest_id=_BESIDE_VOID,
    ),
    "youtube-vos": Format(
        "Annotations/VIDEO/00012.png and meta.json",
        YoutubeVos,
        template="{frame:05d}",
        largest_id=_BESIDE_VOID,
    ),
    "png": Format("grey 16-bit label maps", partial(LabelPictures, bits=16)),
    "png-8": Format("grey 8-bit label maps", LabelPictures, largest_id=_BYTE),
    "png-matte": Format(
        "an 8-bit black-and-white PNG an object and frame",
        Mattes,
        template="{source}_{object}_{frame:06d}",
    ),
    "png-matte-16": Format(
        "the same with 16 bits",
        partial(Mattes, bits=16),
        template="{source}_{object}_{frame:06d}",
    ),
    "coco": Format("COCO JSON, an image a frame", Coco, ".json", _NAMED),
    "coco-ytvis": Format("YouTube-VIS JSON, a track an object", CocoVideo, ".json", _NAMED),
    "mots": Format("MOTS text, masks", Mots, ".txt"),
    "mot": Format("MOTChallenge text, boxes", Mot, ".txt"),
    "yolo-seg": Format(
        "YOLO polygons, a text a frame, and data.yaml", Yolo, template=_NAMED, iou_min=IOU_MIN
    ),
    "labelme": Format("LabelMe JSON a frame, masks", LabelMe, template=_NAMED),
    "cvat": Format("CVAT for video 1.1, XML of masks", Cvat, ".xml"),
    "npz": Format("NumPy archive of label maps", Npz, ".npz"),
}


def find_format(name: str) -> Format:
    """The format of this name. Raises `ConfigError` that lists them."""
    if name not in FORMATS:
        raise ConfigError(f"There is no format {name!r}; there are {', '.join(FORMATS)}.")
    return FORMATS[name]
