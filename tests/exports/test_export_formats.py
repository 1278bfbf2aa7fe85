"""Each export, read by the format's own tool or by its specification, is what the store has."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
import zarr
from faster_coco_eval import COCO
from faster_coco_eval.core import mask as mask_api
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.frames import ExportFrame
from maskstream.pipeline.exports.names import NameTemplate
from maskstream.pipeline.exports.polygons import fill, polygon_of, polygons_of
from maskstream.pipeline.exports.registry import FORMATS
from maskstream.pipeline.store import MaskStore
from maskstream.trackers.iou import mask_iou
from tests.support import stores
from tests.support.exported import NUMBERS, SIZE, shown, whole_masks, write_store

Masks = dict[tuple[int, int], np.ndarray]  # by frame's number and object


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("exports") / "o.zarr"
    write_store(path)
    return MaskStore(path)


def whole() -> Masks:
    return {(n, i): mask for n in NUMBERS for i, mask in whole_masks(n).items()}


def on_top() -> Masks:
    return {(n, i): shown(n) == i for n in NUMBERS for i in whole_masks(n)}


def read_palette(place: Path) -> Masks:
    image = pytest.importorskip("PIL.Image")
    masks = {}
    for file in place.glob("*.png"):
        with image.open(file) as opened:
            assert opened.mode == "P"
            assert opened.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
            masks |= _split(int(file.stem), np.array(opened))
    return masks


def read_youtube(place: Path) -> Masks:
    meta = json.loads((place / "meta.json").read_bytes())["videos"]["my_clip"]["objects"]
    assert {k: v["category"] for k, v in meta.items()} == {
        "1": "object",
        "3": "object",
        "7": "tea cup",
    }
    assert meta["7"]["frames"] == ["00010", "00013", "00014"]
    return read_palette(place / "Annotations" / "my_clip")


def read_labels(place: Path, dtype: type) -> Masks:
    masks = {}
    for number in NUMBERS:
        labels = cv2.imread(str(place / f"{number:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == dtype
        masks |= _split(number, labels)
    return masks


def read_mattes(place: Path, white: int) -> Masks:
    masks = {}
    for object_id, name in ((1, "1"), (3, "3"), (7, "tea_cup")):
        for number in NUMBERS:
            file = place / f"my_clip_{name}_{number:06d}.png"
            matte = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            assert set(np.unique(matte)) <= {0, white}
            if matte.any():
                masks[number, object_id] = matte == white
    return masks


def read_coco(place: Path) -> Masks:
    coco = COCO(str(place))
    assert [i["file_name"] for i in coco.loadImgs(10)] == ["my_clip_000010.png"]
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["object", "tea cup"]
    masks = {}
    for found in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(found) > 0
        assert found["area"] == mask.sum()
        assert found["bbox"] == list(mask_api.toBbox(found["segmentation"]))
        assert found["score"] == 0.75
        masks[found["image_id"], found["track_id"]] = mask
    return masks


def read_ytvis(place: Path) -> Masks:
    values = json.loads(place.read_bytes())
    (video,) = values["videos"]
    assert video["length"] == len(video["file_names"]) == len(NUMBERS)
    masks = {}
    for track in values["annotations"]:
        columns = (track["segmentations"], track["bboxes"], track["areas"])
        for number, rle, box, area in zip(NUMBERS, *columns, strict=True):
            assert (rle is None) == (box is None) == (area is None)
            if rle is not None:
                masks[number, track["id"]] = mask_api.decode(rle) > 0
                assert masks[number, track["id"]].sum() == area
    return masks


def read_mots(place: Path) -> Masks:
    masks = {}
    for line in place.read_text().splitlines():
        frame, object_id, kind, height, width, counts = line.split(" ")
        assert kind == ("2" if object_id == "7" else "1")
        rle = {"size": [int(height), int(width)], "counts": counts}
        masks[int(frame), int(object_id)] = mask_api.decode(rle) > 0
    return masks


def read_yolo(place: Path) -> Masks:
    data = yaml.safe_load((place / "data.yaml").read_text())
    assert data["names"] == {0: "object", 1: "tea cup"}
    masks = {}
    for number in NUMBERS:
        lines = (place / "labels" / f"my_clip_{number:06d}.txt").read_text().splitlines()
        for object_id, line in zip(whole_masks(number), lines, strict=True):
            kind, *values = line.split()
            assert kind == ("1" if object_id == 7 else "0")
            points = np.array(values, float).reshape(-1, 2) * (SIZE[1], SIZE[0])
            drawn = cv2.fillPoly(np.zeros(SIZE, np.uint8), [points.astype(np.int32)], 1)
            masks[number, object_id] = drawn > 0
    return masks


def read_labelme(place: Path) -> Masks:
    masks = {}
    for number in NUMBERS:
        values = json.loads((place / f"my_clip_{number:06d}.json").read_bytes())
        assert (values["imageHeight"], values["imageWidth"]) == SIZE
        for shape in values["shapes"]:
            (x0, y0), (x1, y1) = shape["points"]
            encoded = np.frombuffer(base64.b64decode(shape["mask"]), np.uint8)
            mask = masks[number, shape["group_id"]] = np.zeros(SIZE, bool)
            mask[y0 : y1 + 1, x0 : x1 + 1] = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    return masks


def read_cvat(place: Path) -> Masks:
    ids = {"object_1": 1, "object_3": 3, "tea_cup": 7}
    root = ElementTree.fromstring(place.read_text())  # noqa: S314
    assert {name.text for name in root.iter("name")} == {"my_clip", *ids}
    masks = {}
    for track in root.iter("track"):
        found, end = track
        assert (found.get("outside"), end.get("outside")) == ("0", "1")
        left, top, width, height = (int(found.get(k)) for k in ("left", "top", "width", "height"))
        mask = masks[int(found.get("frame")), ids[track.get("label")]] = np.zeros(SIZE, bool)
        pixels, value = [], False
        for run in found.get("rle").split(","):
            pixels += [value] * int(run)
            value = not value
        mask[top : top + height, left : left + width] = np.reshape(pixels, (height, width))
    return masks


def read_npz(place: Path) -> Masks:
    with np.load(place) as arrays:
        assert arrays["frames"].tolist() == list(NUMBERS)
        names = zip(arrays["object_ids"].tolist(), arrays["object_names"].tolist(), strict=True)
        assert dict(names) == {1: "", 3: "", 7: "tea cup"}
        assert arrays["masks"].dtype == np.uint16
        pairs = zip(NUMBERS, arrays["masks"], strict=True)
        return {k: v for number, labels in pairs for k, v in _split(number, labels).items()}


def read_ome(place: Path) -> Masks:
    """By the specification; ome-zarr and its models read it, too (docs/reference/exports.md)."""
    root = zarr.open_group(place, mode="r")
    assert root.attrs["maskstream"]["frames"] == list(NUMBERS)
    assert root.attrs["maskstream"]["objects"] == {"1": "", "3": "", "7": "tea cup"}
    ome = root.attrs["ome"]
    (image,) = ome["multiscales"]
    assert (ome["version"], [a["name"] for a in image["axes"]]) == ("0.5", ["t", "y", "x"])
    array = root[image["datasets"][0]["path"]]
    assert (array.dtype, array.metadata.dimension_names) == (np.uint16, ("t", "y", "x"))
    pairs = zip(NUMBERS, array[:], strict=True)
    return {k: v for number, labels in pairs for k, v in _split(number, labels).items()}


def _split(number: int, labels: np.ndarray) -> Masks:
    return {(number, int(i)): labels == i for i in np.unique(labels) if i}


READERS: dict[str, tuple[Callable[[Path], Masks], Callable[[], Masks]]] = {
    "davis": (read_palette, on_top),
    "youtube-vos": (read_youtube, on_top),
    "png": (lambda p: read_labels(p, np.uint16), on_top),
    "png-8": (lambda p: read_labels(p, np.uint8), on_top),
    "png-matte": (lambda p: read_mattes(p, 255), whole),
    "png-matte-16": (lambda p: read_mattes(p, 65535), whole),
    "coco": (read_coco, whole),
    "coco-ytvis": (read_ytvis, whole),
    "mots": (read_mots, on_top),
    "yolo-seg": (read_yolo, whole),
    "labelme": (read_labelme, whole),
    "cvat": (read_cvat, whole),
    "ome-zarr": (read_ome, on_top),
    "npz": (read_npz, on_top),
}


@pytest.mark.parametrize("name", READERS)
def test_masks_come_back(store, tmp_path, name):
    place = tmp_path / f"out{FORMATS[name].suffix}"
    seen = []
    summary = export_store(
        store, place, ExportChoice(name), on_start=seen.append, on_frame=seen.append
    )
    assert (summary.frames, summary.objects, summary.kept) == (4, 3, 0)
    assert seen[0] == len(seen) - 1 == 8
    read, truth = READERS[name][0](place), READERS[name][1]()
    least = 0.98 if name == "yolo-seg" else 1.0
    assert read.keys() == truth.keys()
    assert min(mask_iou(read[key], mask) for key, mask in truth.items()) >= least
    assert summary.worst_iou >= least
    assert [p.name for p in tmp_path.iterdir()] == [place.name]
    if place.is_dir():
        assert not [p for p in place.rglob("*") if p.name.startswith(".")]


def test_every_format_but_boxes_is_in_the_table():
    datasets = {name for name, wanted in FORMATS.items() if not wanted.needs_video}
    assert datasets - READERS.keys() == {"mot"}


def test_ome_zarr_is_few_files_and_right_beyond_a_shard(tmp_path):
    stores.write(tmp_path / "o.zarr", range(130))
    choice = ExportChoice("ome-zarr")
    summary = export_store(MaskStore(tmp_path / "o.zarr"), tmp_path / "ome.zarr", choice)
    assert (summary.frames, summary.worst_iou) == (130, 1.0)
    assert len([p for p in (tmp_path / "ome.zarr").rglob("*") if p.is_file()]) == 3 + 2
    array = zarr.open_array(tmp_path / "ome.zarr", path="0", mode="r")
    assert np.array_equal(array[:], np.stack([stores.expected(i).labels for i in range(130)]))


def test_mot_boxes_count_pixels_from_one(store, tmp_path):
    export_store(store, tmp_path / "mot.txt", ExportChoice("mot", start="13", end="14"))
    rows = np.genfromtxt(tmp_path / "mot.txt", delimiter=",")
    assert rows[:, :2].tolist() == [[13, 1], [13, 3], [13, 7]]
    assert rows[1, 2:].tolist() == [39, 26, 33, 23, 0.75, -1, -1, -1]


def test_an_object_under_one_that_is_left_out_shows(store, tmp_path):
    export_store(store, tmp_path / "davis", ExportChoice("davis", objects="1,tea cup"))
    labels = cv2.imread(str(tmp_path / "davis" / "00010.png"), cv2.IMREAD_UNCHANGED)
    assert labels is not None
    masks, read = whole_masks(10), read_palette(tmp_path / "davis")
    assert np.array_equal(read[10, 1], masks[1] & ~masks[7])
    assert np.array_equal(read[10, 7], masks[7])
    assert (10, 3) not in read


def test_whole_mask_is_the_stores(store):
    for row, result in enumerate(store):
        frame = ExportFrame(result.index, row, result, ())
        for object_id in (1, 3, 7):
            assert np.array_equal(frame.mask(object_id), store.mask(object_id, row))


def test_equal_masks_give_equal_files(store, tmp_path):
    for name, wanted in FORMATS.items():
        if wanted.needs_video:  # test_export_editors.py
            continue
        content = []
        for run in "ab":
            place = tmp_path / run / f"{name}{wanted.suffix}"
            export_store(store, place, ExportChoice(name))
            files = [place] if place.is_file() else sorted(p for p in place.rglob("*.*"))
            content.append([f.read_bytes() for f in files if f.is_file()])
        assert content[0] == content[1], name


@settings(max_examples=60, deadline=None)
@given(mask=hnp.arrays(np.bool_, (9, 12)))
def test_polygon_covers_the_mask_and_adds_only_lines_between_pieces(mask):
    if not mask.any():
        return
    drawn = fill(polygon_of(mask), mask.shape)
    assert not (mask & ~drawn).any()
    pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    assert pieces > 1 or np.array_equal(drawn, mask)


@pytest.mark.parametrize(("apart", "polygons"), [(2, 1), (300, 2)])
def test_far_pieces_have_a_polygon_each(apart, polygons):
    mask = np.zeros((40, 400), np.bool_)
    mask[5:35, 5:35] = mask[5:35, 35 + apart : 65 + apart] = True
    found = polygons_of(mask, 0.98)
    assert len(found) == polygons
    drawn = np.logical_or.reduce([fill(polygon, mask.shape) for polygon in found])
    assert mask_iou(drawn, mask) >= 0.98


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{frame}", "12"),
        ("{source}_{object}_{frame:06d}", "clip_cup_000012"),
        ("{object}/{frame:04d}", "cup/0012"),
    ],
)
def test_template_makes_names(template, name):
    assert NameTemplate(template, "clip").of(12, "cup") == name


def test_png_is_read_by_others(store, tmp_path):
    image = pytest.importorskip("PIL.Image")
    export_store(store, tmp_path / "p", ExportChoice("png", template="a/{source}.{frame}"))
    data = (tmp_path / "p" / "a" / "my_clip.13.png").read_bytes()
    with image.open(io.BytesIO(data)) as opened:
        opened.load()
        assert np.array_equal(np.array(opened, np.uint16), shown(13))
