"""Registry of export formats by name. To add one, write an `Exporter` and add an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.exports.annotation_tools import Cvat, LabelMe
from maskstream.pipeline.exports.canvases import Composite, CutOut, Matte, Overlay
from maskstream.pipeline.exports.coco import Coco, CocoVideo
from maskstream.pipeline.exports.cutouts import ExrLayers, PngCutOuts
from maskstream.pipeline.exports.editor_videos import FFV1, H264, H264_MATTE, PRORES, VP9, Movie
from maskstream.pipeline.exports.job import Exporter, ExportJob, Format
from maskstream.pipeline.exports.label_images import (
    DAVIS_RESOLUTION,
    LabelImages,
    Mattes,
    YoutubeVos,
)
from maskstream.pipeline.exports.mot import Mot, Mots
from maskstream.pipeline.exports.npz import Npz
from maskstream.pipeline.exports.ome_zarr import OmeZarr
from maskstream.pipeline.exports.yolo import IOU_MIN, Yolo

_BYTE = 255
_BESIDE_VOID = 254  # 255 stands for "not labeled" in DAVIS and YouTube-VOS
_NAMED = "{source}_{frame:06d}"
_LOSSY_IOU_MIN = 0.98  # of a matte after a lossy codec; for composites: share of similar pixels


def _editors(
    summary: str,
    open_job: Callable[[ExportJob], Exporter],
    suffix: str = "",
    *,
    iou_min: float = 1.0,
    takes_background: bool = False,
) -> Format:
    return Format(
        summary,
        open_job,
        suffix,
        template=_NAMED,
        iou_min=iou_min,
        needs_video=True,
        takes_edges=True,
        takes_background=takes_background,
    )


FORMATS: Mapping[str, Format] = {
    "davis": Format(
        "a PNG with DAVIS' palette a frame",
        LabelImages.davis,
        template="{frame:05d}",
        largest_id=_BESIDE_VOID,
        images=f"JPEGImages/{DAVIS_RESOLUTION}/{{source}}/",
    ),
    "youtube-vos": Format(
        "Annotations/VIDEO/00012.png and meta.json",
        YoutubeVos,
        template="{frame:05d}",
        largest_id=_BESIDE_VOID,
        images="JPEGImages/{source}/",
    ),
    "png": Format("gray 16-bit label maps", partial(LabelImages, bits=16)),
    "png-8": Format("gray 8-bit label maps", LabelImages, largest_id=_BYTE),
    "png-matte": Format(
        "an 8-bit black-and-white PNG an object and frame",
        Mattes,
        template="{source}_{object}_{frame:06d}",
        takes_edges=True,
    ),
    "png-matte-16": Format(
        "the same with 16 bits",
        partial(Mattes, bits=16),
        template="{source}_{object}_{frame:06d}",
        takes_edges=True,
    ),
    "coco": Format("COCO JSON, an image a frame", Coco, ".json", _NAMED, images=""),
    "coco-ytvis": Format(
        "YouTube-VIS JSON, a track an object", CocoVideo, ".json", _NAMED, images=""
    ),
    "mots": Format("MOTS text, masks", Mots, ".txt", images=""),
    "mot": Format("MOTChallenge text, boxes", Mot, ".txt", images=""),
    "yolo-seg": Format(
        "YOLO polygons, a text a frame, and data.yaml",
        Yolo,
        template=_NAMED,
        iou_min=IOU_MIN,
        images="images/",
    ),
    "labelme": Format("LabelMe JSON a frame, masks", LabelMe, template=_NAMED, images=""),
    "cvat": Format("CVAT for video 1.1, XML of masks", Cvat, ".xml", images=""),
    "ome-zarr": Format("OME-Zarr 0.5, label maps as an image", OmeZarr),
    "npz": Format("NumPy archive of label maps", Npz, ".npz"),
    "prores": _editors(
        "ProRes 4444 with alpha",
        lambda job: Movie(job, PRORES, CutOut.prores()),
        ".mov",
        iou_min=_LOSSY_IOU_MIN,
    ),
    "vp9": _editors(
        "VP9 with alpha",
        lambda job: Movie(job, VP9, CutOut.vp9()),
        ".webm",
        iou_min=_LOSSY_IOU_MIN,
    ),
    "ffv1": _editors(
        "FFV1 with alpha, lossless", lambda job: Movie(job, FFV1, CutOut.lossless()), ".mkv"
    ),
    "matte": _editors(
        "black-and-white H.264",
        lambda job: Movie(job, H264_MATTE, Matte("yuv420p")),
        ".mp4",
        iou_min=_LOSSY_IOU_MIN,
    ),
    "matte-lossless": _editors(
        "gray FFV1, lossless", lambda job: Movie(job, FFV1, Matte("gray")), ".mkv"
    ),
    "png-rgba": _editors("an 8-bit PNG with alpha a frame", PngCutOuts),
    "png-rgba-16": _editors("the same with 16 bits", partial(PngCutOuts, bits=16)),
    "exr": _editors("OpenEXR a frame, a layer an object", ExrLayers),
    "green": _editors(
        "the objects on a green screen, H.264",
        lambda job: Movie(job, H264, Composite.green()),
        ".mp4",
        iou_min=_LOSSY_IOU_MIN,
    ),
    "background": _editors(
        "the objects over a color, an image or blur, H.264",
        Movie.before_background,
        ".mp4",
        iou_min=_LOSSY_IOU_MIN,
        takes_background=True,
    ),
    "overlay": _editors(
        "a preview with drawn masks, H.264",
        lambda job: Movie(job, H264, Overlay()),
        ".mp4",
        iou_min=_LOSSY_IOU_MIN,
    ),
}


def find_format(name: str) -> Format:
    """The format of this name. Raises `ConfigError` if it is unknown."""
    if name not in FORMATS:
        raise ConfigError(f"There is no format {name!r}; there are {', '.join(FORMATS)}.")
    return FORMATS[name]
