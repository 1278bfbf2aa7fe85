"""Masks from elsewhere: every export comes back, and what tools write is understood."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from maskstream.pipeline.errors import ConfigError, PromptError, UnreadableSourceError
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.png import davis_palette, encode_png
from maskstream.pipeline.exports.registry import FORMATS
from maskstream.pipeline.imports.prompts_file import ImportChoice, ImportCount, import_as_prompts
from maskstream.pipeline.prompts import MaskEvent, RenameEvent, load_prompts
from maskstream.pipeline.sources.mask_images import read_mask
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.pipeline.types import FrameResult
from maskstream.trackers.iou import mask_iou
from tests.support.exported import NUMBERS, SIZE, shown, whole_masks, write_store
from tests.support.media import moving_shapes, read, write_video

HEIGHT, WIDTH = SIZE


def imported(place: Path, folder: Path, **options) -> tuple[dict, dict[int, str], ImportCount]:
    """Masks by frame and object, names by object, and the counts."""
    prompts = folder / "back" / "prompts.json"
    count = import_as_prompts(place, prompts, ImportChoice(overwrite=True, **options))
    events = load_prompts(prompts).events
    masks = {(e.frame, e.object): e.mask for e in events if isinstance(e, MaskEvent)}
    return masks, {e.object: e.name for e in events if isinstance(e, RenameEvent)}, count


def disc(x: int = 40, y: int = 30, radius: int = 12) -> np.ndarray:
    """A mask, bool [H, W]."""
    return cv2.circle(np.zeros(SIZE, np.uint8), (x, y), radius, 1, -1) > 0


# Every export that holds masks: whether objects overlap in it, and its options.
ANNOTATIONS = {
    "davis": False,
    "youtube-vos": False,
    "png": False,
    "png-8": False,
    "png-matte": True,
    "png-matte-16": True,
    "coco": True,
    "coco-ytvis": True,
    "mots": False,
    "labelme": True,
    "cvat": True,
    "ome-zarr": False,
    "npz": False,
}


@pytest.mark.parametrize("form", ANNOTATIONS)
def test_an_export_of_masks_comes_back(tmp_path, form):
    write_store(tmp_path / "o.zarr")
    place = tmp_path / f"out{FORMATS[form].suffix}"
    export_store(MaskStore(tmp_path / "o.zarr"), place, ExportChoice(form))
    masks, names, count = imported(place, tmp_path)
    assert (count.masks, count.objects, count.frames, count.specks) == (11, 3, 4, 0)
    # A matte's file does not say that "tea cup" is object 7: it gets the first free number.
    cup = 2 if "matte" in form else 7
    for number in NUMBERS:
        for object_id, mask in whole_masks(number).items():
            truth = mask if ANNOTATIONS[form] else shown(number) == object_id
            key = number, cup if object_id == 7 else object_id
            assert np.array_equal(masks.pop(key), truth), key
    assert not masks
    tells_names = form not in ("davis", "youtube-vos", "png", "png-8", "mots")
    expected = {cup: "tea_cup" if "matte" in form else "tea cup"} if tells_names else {}
    assert {key: name.replace("_", " ") for key, name in names.items()} == {
        key: name.replace("_", " ") for key, name in expected.items()
    }


def test_yolo_polygons_come_back_by_class(tmp_path):
    write_store(tmp_path / "o.zarr")
    place = tmp_path / "yolo"
    export_store(MaskStore(tmp_path / "o.zarr"), place, ExportChoice("yolo-seg"))
    with pytest.raises(ConfigError, match="--source"):
        imported(place, tmp_path)
    video = write_video(tmp_path / "v.mp4", np.zeros((2, *SIZE, 3), np.uint8))
    masks, names, _ = imported(place, tmp_path, source=video)
    assert names == {2: "tea cup"}
    for number in NUMBERS:
        whole = whole_masks(number)
        assert mask_iou(masks[number, 1], whole[1] | whole[3]) > 0.98
        assert 7 not in whole or mask_iou(masks[number, 2], whole[7]) > 0.98


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A store beside its video, and the union of its two objects by frame."""
    folder = tmp_path_factory.mktemp("filmed")
    frames, masks = moving_shapes(6, (120, 180), seed=2)
    info, _, read_frames = read_video(write_video(folder / "clip.mp4", frames))
    place = folder / "clip.zarr"
    writer = MaskStoreWriter(place, info=info, attributes={})
    writer.add_events([{"frame": 0, "type": "rename", "object": 2, "name": "box.one"}])
    for frame, labels in zip(read_frames, masks.astype(np.uint16), strict=True):
        writer.append(
            FrameResult(frame.index, frame.pts, frame.time_base, True, labels, _objects(labels))
        )
    writer.close(complete=True)
    return MaskStore(place), masks


def read_video(path):
    from maskstream.pipeline.sources import VideoFile

    return read(VideoFile(path))


def _objects(labels):
    from tests.exports.test_export_editors import found_on

    return tuple(found_on(labels, int(i)) for i in np.unique(labels) if i)


VIDEOS = [
    name
    for name, form in FORMATS.items()
    if form.needs_video and name not in ("exr", "overlay", "background")
]


@pytest.mark.parametrize("form", VIDEOS)
def test_an_export_of_one_matte_comes_back(tmp_path, filmed, form):
    store, truth = filmed
    place = tmp_path / f"out{FORMATS[form].suffix}"
    export_store(store, place, ExportChoice(form))
    masks, _, count = imported(place, tmp_path)
    assert (count.objects, count.frames) == (1, len(truth))
    for number, labels in enumerate(truth):
        assert mask_iou(masks[number, 1], labels > 0) > (0.9 if form == "green" else 0.98)


def test_layers_of_openexr_come_back(tmp_path, filmed):
    pytest.importorskip("OpenEXR")
    pytest.importorskip("OpenImageIO")
    store, truth = filmed
    export_store(store, tmp_path / "exr", ExportChoice("exr"))
    masks, names, _ = imported(tmp_path / "exr", tmp_path)
    assert names == {2: "box_one"}
    for number, labels in enumerate(truth):
        for object_id in (1, 2):
            if (labels == object_id).any():
                assert mask_iou(masks[number, object_id], labels == object_id) > 0.99


def test_every_export_with_masks_is_tried():
    boxes_or_pictures = {"mot", "overlay", "background"}
    assert FORMATS.keys() == {*ANNOTATIONS, *VIDEOS, "yolo-seg", "exr", *boxes_or_pictures}


# What tools write: the pixels of a matte of one object.
def _gray(mask):
    return mask.astype(np.uint8) * 255


MATTES = {
    "gray.png": _gray,
    "ones.png": lambda m: m.astype(np.uint8),
    "deep.png": lambda m: m.astype(np.uint16) * 65535,
    "rgb.png": lambda m: np.repeat(_gray(m)[..., None], 3, axis=2),
    "rgba.png": lambda m: np.dstack([np.full((*m.shape, 3), 90, np.uint8), _gray(m)]),
    "solid.png": lambda m: np.dstack([np.repeat(_gray(m)[..., None], 3, 2), _gray(m) | 255]),
    "UPPER.PNG": _gray,
    "matte.jpg": _gray,
    "color.jpg": lambda m: np.repeat(_gray(m)[..., None], 3, axis=2),
    "gray.tif": _gray,
    "deep.tiff": lambda m: m.astype(np.uint16) * 65535,
    "matte.bmp": _gray,
    "matte.webp": lambda m: np.repeat(_gray(m)[..., None], 3, axis=2),
    "soft.png": lambda m: cv2.GaussianBlur(_gray(m), (0, 0), 2),
}


@pytest.mark.parametrize("name", MATTES)
def test_a_matte_is_understood(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    stem, suffix = name.split(".")
    truth = {number: disc(20 + 8 * number) for number in range(1, 5)}
    for number, mask in truth.items():
        assert cv2.imwrite(str(folder / f"{stem}_{number:03}.{suffix}"), MATTES[name](mask))
    masks, _, count = imported(folder, tmp_path)
    assert (count.objects, count.frames, count.specks) == (1, 4, 0)
    for (number, _), mask in masks.items():
        assert mask_iou(mask, truth[number]) > 0.97
    one = folder / f"{stem}_002.{suffix}"
    assert mask_iou(read_mask(one), truth[2]) > 0.97  # as a prompt's mask, too
    alone, _, _ = imported(one, tmp_path)
    assert list(alone) == [(2, next(iter(masks))[1])] or list(alone) == [(2, 1)]


def test_gray_with_alpha_is_a_matte(tmp_path):
    mask = disc()
    frame = av.VideoFrame(WIDTH, HEIGHT, "ya8")
    pixels = np.frombuffer(frame.planes[0], np.uint8).reshape(HEIGHT, -1)
    pixels[:, : 2 * WIDTH : 2], pixels[:, 1 : 2 * WIDTH : 2] = 200, mask * 255
    with av.open(str(tmp_path / "5.png"), "w", format="image2") as output:
        stream = output.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "ya8"
        output.mux([*stream.encode(frame), *stream.encode(None)])
    masks, _, _ = imported(tmp_path / "5.png", tmp_path)
    assert np.array_equal(masks[5, 1], mask)


def test_palettes_are_labels_or_by_their_colors_mattes(tmp_path):
    mask = disc()
    black_on_white = bytes([255] * 3 + [0] * 3 + [0] * 762)
    for name, palette, values in [
        ("labels", davis_palette(), mask * np.uint8(3)),
        ("matte", bytes([0] * 3 + [255] * 3 + [0] * 762), mask.astype(np.uint8)),
        ("inverted", black_on_white, (~mask).astype(np.uint8)),
    ]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "7.png").write_bytes(encode_png(values, palette))
        masks, _, _ = imported(tmp_path / name, tmp_path)
        (key,) = masks
        assert key == (7, 3 if name == "labels" else 1)
        assert np.array_equal(masks[key], mask), name
        assert np.array_equal(read_mask(tmp_path / name / "7.png"), mask), name


def test_colors_are_objects_the_same_on_every_frame(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    red, blue = (0, 0, 255), (255, 0, 0)
    for number in range(3):
        image = np.zeros((*SIZE, 3), np.uint8)
        if number != 1:
            image[disc(20)] = red
        image[disc(60)] = blue
        cv2.imwrite(str(folder / f"{number}.png"), image)
    masks, _, count = imported(folder, tmp_path)
    assert (count.objects, count.masks) == (2, 5)
    blue_id = next(key for (frame, key) in masks if frame == 1)
    for (_, object_id), mask in masks.items():
        assert np.array_equal(mask, disc(60 if object_id == blue_id else 20))


def test_noise_is_no_object_and_specks_are_dropped(tmp_path, cli):
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        noisy = _gray(disc()).astype(int) + rng.integers(-4, 5, SIZE)
        noisy[5:7, 5:7] = 250  # a speck
        cv2.imwrite(str(folder / f"{number}.png"), np.clip(noisy, 0, 255).astype(np.uint8))
    masks, _, count = imported(folder, tmp_path)
    assert (count.masks, count.objects, count.specks, count.speck_frames) == (4, 1, 4, 4)
    assert all(np.array_equal(mask, disc()) for mask in masks.values())
    kept, _, count = imported(folder, tmp_path, specks=0)
    assert count.specks == 0
    assert all(mask[5, 5] for mask in kept.values())
    code, _, err = cli("import-masks", folder, "-o", tmp_path / "p.json")
    assert code == 0
    assert "4 parts of fewer than 16 pixels were dropped on 4 frames" in " ".join(err.split())


@pytest.mark.parametrize(
    "layout", ["{name}/{frame:04}.png", "{name}_{frame:04}.png", "shot_{name}.{frame:04}.png"]
)
def test_an_object_a_file_or_folder_is_named_by_it(tmp_path, layout):
    folder = tmp_path / "in"
    where = {"alice": 20, "bob": 60}
    for name, x in where.items():
        for frame in range(3):
            file = folder / layout.format(name=name, frame=frame)
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), _gray(disc(x)))
    masks, names, count = imported(folder, tmp_path)
    assert (count.objects, count.frames, count.masks) == (2, 3, 6)
    assert set(names.values()) == {"alice", "bob"}
    for (_, object_id), mask in masks.items():
        assert np.array_equal(mask, disc(where[names[object_id]]))


def test_a_single_named_folder_names_its_object(tmp_path):
    folder = tmp_path / "in" / "cup"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "00003.png"), _gray(disc()))
    assert imported(tmp_path / "in", tmp_path)[1] == {1: "cup"}


def test_what_may_be_either_is_asked(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    values = np.zeros(SIZE, np.uint8)
    values[disc(20)], values[disc(60)] = 128, 255
    cv2.imwrite(str(folder / "1.png"), values)
    with pytest.raises(ConfigError, match=r"--format png .* or --format matte"):
        imported(folder, tmp_path)
    assert imported(folder, tmp_path, format="png")[2].objects == 2
    assert imported(folder, tmp_path, format="matte")[2].objects == 1


def test_pictures_are_no_masks(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    picture = np.random.default_rng(1).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "1.png"), picture)
    with pytest.raises(UnreadableSourceError, match="picture of the video"):
        imported(folder, tmp_path)
    clip = write_video(tmp_path / "clip.mp4", moving_shapes(3, SIZE)[0])
    with pytest.raises(UnreadableSourceError, match="neither"):
        imported(clip, tmp_path)


def test_frames_are_moved_by_an_offset(tmp_path):
    cv2.imwrite(str(tmp_path / "10.png"), _gray(disc()))
    assert list(imported(tmp_path / "10.png", tmp_path, offset=-10)[0]) == [(0, 1)]
    with pytest.raises(ConfigError, match="negative"):
        imported(tmp_path / "10.png", tmp_path, offset=-11)


def test_boxes_of_motchallenge_are_refused(tmp_path):
    write_store(tmp_path / "o.zarr")
    export_store(MaskStore(tmp_path / "o.zarr"), tmp_path / "mot.txt", ExportChoice("mot"))
    with pytest.raises(UnreadableSourceError, match="boxes"):
        imported(tmp_path / "mot.txt", tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.npz", b"x"), ("a.xml", b"<a>"), ("a.txt", b"\xff\xfe"), ("a.json", b"{"), ("a.mp4", b"x")]
    + [("a.npz", b""), ("a.xml", b""), ("1.png", b""), ("1.jpg", b"\xff\xd8"), ("a.mov", b"")],
)
def test_damaged_files_are_a_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((UnreadableSourceError, PromptError)):
        imported(tmp_path / name, tmp_path)
    assert not (tmp_path / "back" / "prompts.json").exists()


def test_a_run_takes_what_was_imported(tmp_path, cli, filmed):
    store, truth = filmed
    export_store(store, tmp_path / "m.mp4", ExportChoice("matte"))
    prompts = tmp_path / "p.json"
    assert cli("import-masks", tmp_path / "m.mp4", "-o", prompts, "--stride", "3")[0] == 0
    place = tmp_path / "again.zarr"
    code, _, err = cli("run", store.source.name, "-o", place, "--prompts", prompts, "--quiet")
    assert code == 0, err
    again = MaskStore(place)
    for row, labels in enumerate(truth):
        assert mask_iou(again.frame(row).labels > 0, labels > 0) > 0.7
