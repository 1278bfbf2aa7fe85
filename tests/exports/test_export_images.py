"""Annotations with the pictures they are of, as the formats' readers look for them."""

import json
import shutil

import cv2
import numpy as np
import pytest
import yaml
from faster_coco_eval import COCO

from maskstream.pipeline.errors import ConfigError, SourceError, StoreError, StoreExistsError
from maskstream.pipeline.exports import source_images as images_module
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.output import MARKER
from maskstream.pipeline.exports.registry import FORMATS
from maskstream.pipeline.lab.evaluation.video.folders import find_clips
from maskstream.pipeline.sources import VideoFile, open_source
from maskstream.pipeline.sources.identity import identity_of
from maskstream.pipeline.store import MaskStore, MaskStoreWriter
from maskstream.pipeline.types import FrameResult
from tests.exports.test_export_editors import found_on, masks_of
from tests.support.media import moving_shapes, read, write_clip

SIZE, COUNT = (48, 64), 4
PTS_MS = (0, 40, 55, 200)


@pytest.fixture(scope="module")
def shapes():
    return moving_shapes(COUNT, SIZE)


@pytest.fixture(scope="module")
def store(tmp_path_factory, shapes):
    place = tmp_path_factory.mktemp("clip") / "my clip.mp4"
    return masks_of(write_clip(place, shapes[0], pts_ms=PTS_MS), shapes[1])


def exported(store, place, name, **options):
    choice = ExportChoice(name, images=True, **options)
    export_store(store, place, choice)
    return place


PLACES = {
    "davis": "JPEGImages/480p/my_clip/{:05d}.jpg",
    "youtube-vos": "JPEGImages/my_clip/{:05d}.jpg",
    "yolo-seg": "images/my_clip_{:06d}.jpg",
    "labelme": "my_clip_{:06d}.jpg",
    "coco": "../out_pictures/my_clip_{:06d}.jpg",
    "coco-ytvis": "../out_pictures/my_clip_{:06d}.jpg",
    "cvat": "../out_pictures/{:06d}.jpg",
    "mots": "../out_pictures/{:06d}.jpg",
    "mot": "../out_pictures/{:06d}.jpg",
}


def test_every_format_with_images_is_in_the_table():
    assert PLACES.keys() == {name for name, f in FORMATS.items() if f.images is not None}


@pytest.mark.parametrize("name", PLACES)
def test_images_are_the_sources_frames_under_their_numbers(store, tmp_path, name):
    place = exported(store, tmp_path / f"out{FORMATS[name].suffix}", name, start="1", end="3")
    folder = place if place.is_dir() else place.with_name("out_pictures")
    files = sorted(tmp_path.rglob("*.jpg"))
    wanted = [PLACES[name].format(n).replace("../out_pictures", str(folder)) for n in (1, 2)]
    assert files == [folder / name for name in wanted]
    _, _, frames = read(open_source(store.source.name))
    for file, index in zip(files, (1, 2), strict=True):
        written = cv2.imread(str(file))[..., ::-1].astype(float)
        off = [np.abs(written - frame.rgb()).mean() for frame in frames]
        assert np.argmin(off) == index
        assert off[index] < 6  # JPEG's loss
    assert not list(tmp_path.rglob(MARKER))
    assert not list(tmp_path.rglob("*.part*"))


def test_coco_names_its_images(store, tmp_path):
    coco = COCO(str(exported(store, tmp_path / "c.json", "coco")))
    names = [image["file_name"] for image in coco.loadImgs(coco.getImgIds())]
    assert [(tmp_path / "c_pictures" / name).is_file() for name in names] == [True] * COUNT
    videos = json.loads(exported(store, tmp_path / "y.json", "coco-ytvis").read_bytes())["videos"]
    assert sorted(p.name for p in (tmp_path / "y_pictures").iterdir()) == videos[0]["file_names"]


def test_labelme_finds_its_image_beside_the_file(store, tmp_path):
    place = exported(store, tmp_path / "l", "labelme", template="{source}/{frame}")
    for file in (place / "my_clip").glob("*.json"):
        values = json.loads(file.read_bytes())
        image = cv2.imread(str(file.parent / values["imagePath"]))
        assert image.shape[:2] == (values["imageHeight"], values["imageWidth"])


def test_yolo_finds_labels_by_the_images_names(store, tmp_path):
    place = exported(store, tmp_path / "y", "yolo-seg")
    data = yaml.safe_load((place / "data.yaml").read_text())
    images = sorted((place / data["path"] / data["train"]).iterdir())
    labels = [str(p).replace("images", "labels").replace(".jpg", ".txt") for p in images]
    assert labels == [str(p) for p in sorted((place / "labels").iterdir())]


@pytest.mark.parametrize("name", ["davis", "youtube-vos"])
def test_davis_tree_is_read_by_the_evaluation(store, shapes, tmp_path, name):
    (entry,) = find_clips(exported(store, tmp_path / "d", name)).clips
    assert entry.name == "my_clip"
    clip = entry.load()
    _, _, frames = read(clip.source)
    assert [f.index for f in frames] == list(range(COUNT))
    for frame, masks in zip(frames, shapes[1], strict=True):
        assert np.array_equal(clip.truth.at(frame.index), masks)


def test_without_images_everything_stays_where_it_was(store, tmp_path):
    export_store(store, tmp_path / "d", ExportChoice("davis"))
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [f"{i:05d}.png" for i in range(4)]
    export_store(store, tmp_path / "c.json", ExportChoice("coco"))
    assert not (tmp_path / "c_pictures").exists()


@pytest.mark.parametrize("name", ["png", "npz", "png-rgba", "prores"])
def test_formats_without_a_place_for_them_say_so(store, tmp_path, name):
    with pytest.raises(ConfigError, match="no place for images"):
        exported(store, tmp_path / f"out{FORMATS[name].suffix}", name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["davis", "coco"])
def test_broken_off_goes_on_and_nothing_is_overwritten_unasked(store, tmp_path, monkeypatch, name):
    place = tmp_path / f"out{FORMATS[name].suffix}"
    write = images_module.WithImages.write

    def stop(self, frame):
        if frame.number == 2:
            raise KeyboardInterrupt
        write(self, frame)

    with monkeypatch.context() as patched:
        patched.setattr(images_module.WithImages, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            exported(store, place, name)
    assert not place.is_file()
    first = min(tmp_path.rglob("*.jpg"))
    kept = first.stat().st_mtime_ns
    with pytest.raises(StoreExistsError, match="was broken off"):
        exported(store, place, name, objects="1")
    exported(store, place, name)
    assert first.stat().st_mtime_ns == kept
    assert len(list(tmp_path.rglob("*.jpg"))) == COUNT
    first.write_bytes(b"mine")
    with pytest.raises(StoreExistsError, match="--overwrite"):
        exported(store, place, name)
    assert first.read_bytes() == b"mine"
    exported(store, place, name, overwrite=True)
    assert first.read_bytes() != b"mine"


def test_image_that_reads_back_otherwise_is_reported(store, tmp_path, monkeypatch):
    finish = images_module.WithImages.finish

    def damage(self):
        finish(self)
        file = min(tmp_path.rglob("*.jpg"))
        file.write_bytes(file.read_bytes()[:-1])

    monkeypatch.setattr(images_module.WithImages, "finish", damage)
    with pytest.raises(StoreError, match="read back"):
        exported(store, tmp_path / "c.json", "coco")
    assert not (tmp_path / "c.json").exists()


@pytest.fixture
def identified(store, shapes, tmp_path):
    """The same, but the store knows the video by its content."""
    video = tmp_path / "in" / "take.mp4"
    video.parent.mkdir()
    shutil.copy(store.source.name, video)
    info, _, frames = read(VideoFile(video))
    written = MaskStoreWriter(
        tmp_path / "o.zarr", info=info, attributes={"identity": identity_of(video)}
    )
    for frame, labels in zip(frames, shapes[1].astype(np.uint16), strict=True):
        objects = tuple(found_on(labels, int(i)) for i in np.unique(labels) if i)
        written.append(FrameResult(frame.index, frame.pts, frame.time_base, False, labels, objects))
    written.close(complete=True)
    return MaskStore(tmp_path / "o.zarr"), video


def test_wrong_video_of_equal_size_and_times_is_recognized(identified, shapes, tmp_path):
    store, video = identified
    moved = video.rename(tmp_path / "moved.mp4")
    wrong = write_clip(tmp_path / "wrong.mp4", 255 - shapes[0], pts_ms=PTS_MS)
    for name, place in (("ffv1", "a.mkv"), ("davis", "davis")):
        choice = ExportChoice(name, images=name == "davis")
        with pytest.raises(SourceError, match="say with --source"):
            export_store(store, tmp_path / place, choice)  # it is not where it was
    for video, trusted, sentence in (
        (wrong, False, "its content differs"),
        (wrong, True, None),
        (moved, False, None),
    ):
        choice = ExportChoice("ffv1", video=video, trust_video=trusted, overwrite=True)
        if sentence is None:
            export_store(store, tmp_path / "a.mkv", choice)
            continue
        with pytest.raises(SourceError, match=sentence) as told:
            export_store(store, tmp_path / "a.mkv", choice)
        assert "--trust-video" in str(told.value)
        assert not (tmp_path / "a.mkv").exists()
