"""Pictures for editors: PNG with alpha, OpenEXR with layers, numbered as in the source."""

import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest

from maskstream.pipeline.errors import ConfigError, StoreError
from maskstream.pipeline.exports.cutouts import PngCutOuts
from maskstream.pipeline.exports.edges import Edges
from maskstream.pipeline.exports.export import ExportChoice, export_store
from maskstream.pipeline.exports.registry import FORMATS
from maskstream.pipeline.sources import VideoFile
from maskstream.pipeline.store import MaskStore
from tests.exports.test_export_editors import masks_of
from tests.support.media import moving_shapes, read, write_clip, write_video

OpenEXR = pytest.importorskip("OpenEXR")
SIZE = (48, 64)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """RGB that is stored without loss, its masks, and their store."""
    frames, masks = moving_shapes(3, SIZE)
    path = tmp_path_factory.mktemp("exact") / "take.mkv"
    write_video(path, frames, codec="ffv1", pix_fmt="bgr0")
    return frames, masks, masks_of(path, masks)


def exported(store: MaskStore, place, name: str, **options):
    export_store(store, place, ExportChoice(name, **options))
    return sorted(place.iterdir())


def rgba(file) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


@pytest.mark.parametrize(("name", "scale"), [("png-rgba", 1), ("png-rgba-16", 257)])
def test_png_is_the_image_with_straight_alpha(exact, tmp_path, name, scale):
    frames, masks, store = exact
    files = exported(store, tmp_path / "p", name, start="1")
    assert [f.name for f in files] == ["take_000001.png", "take_000002.png"]
    for index, file in enumerate(files, start=1):
        pixels = rgba(file)
        assert pixels.dtype == (np.uint8 if scale == 1 else np.uint16)
        assert np.array_equal(pixels[..., :3], frames[index].astype(int) * scale)  # not dimmed
        assert np.array_equal(pixels[..., 3], np.where(masks[index] > 0, 255 * scale, 0))


def test_png_of_16_bits_keeps_what_10_bits_hold(tmp_path):
    ramp = np.repeat(np.linspace(60, 80, 64)[None, :, None], 48, axis=0).repeat(3, axis=2)
    clip = write_clip(
        tmp_path / "deep.mp4", ramp.astype(np.uint8)[None], pix_fmt="yuv420p10le", sound=""
    )
    store = masks_of(clip, np.ones((1, *SIZE), np.uint8))
    (file,) = exported(store, tmp_path / "p", "png-rgba-16")
    _, _, frames = read(VideoFile(clip))
    assert np.abs(rgba(file)[..., :3] / 257 - frames[0].rgb()).max() < 3
    assert (rgba(file)[..., 1] % 257 != 0).any()  # between the 8-bit levels


def test_png_says_what_its_colors_are(tmp_path):
    frames, masks = moving_shapes(1, SIZE)
    for color, expected in (((1, 9, 9, 16), b"\x09\x10\x00\x01"), ((1, 2, 2, 2), None)):
        clip = write_clip(tmp_path / f"{color[1]}.mp4", frames, color=color, sound="")
        (file,) = exported(masks_of(clip, masks), tmp_path / f"p{color[1]}", "png-rgba")
        data = file.read_bytes()
        assert (b"cICP" in data) == (expected is not None)
        if expected is not None:
            at = data.index(b"cICP")
            assert at == 37  # right after the header
            assert data[at + 4 : at + 8] == expected
            assert data[at + 8 : at + 12] == struct.pack(">I", zlib.crc32(data[at : at + 8]))


def linear(encoded: np.ndarray) -> np.ndarray:
    value = encoded / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def test_exr_has_a_premultiplied_linear_layer_for_each_object(exact, tmp_path):
    frames, masks, store = exact
    files = exported(store, tmp_path / "e", "exr", edges=Edges(feather_px=3))
    assert [f.name for f in files] == [f"take_{i:06d}.exr" for i in range(3)]
    for index, file in enumerate(files):
        with OpenEXR.File(str(file), separate_channels=True) as image:
            channels = {k: v.pixels for k, v in image.channels().items()}
            header = dict(image.header())
        assert channels.keys() == {f"{o}{c}" for o in ("", "1.", "2.") for c in "RGBA"}
        assert {values.dtype for values in channels.values()} == {np.dtype(np.float16)}
        assert np.allclose(header["chromaticities"][:2], (0.64, 0.33))
        assert list(header["framesPerSecond"]) == [25, 1]
        truth = linear(frames[index].astype(float))
        for object_id in (1, 2):
            alpha = channels[f"{object_id}.A"].astype(float)
            assert np.mean((alpha > 0.5) == (masks[index] == object_id)) > 0.98
            assert ((alpha > 0) & (alpha < 1)).any()
            for i, name in enumerate("RGB"):
                layer = channels[f"{object_id}.{name}"]
                assert np.abs(layer - truth[..., i] * alpha).max() < 1e-3
        together = np.maximum(channels["1.A"], channels["2.A"])
        assert np.array_equal(channels["A"], together)


def test_exr_layers_are_named_as_the_objects_and_chosen(exact, tmp_path):
    _, _, store = exact
    renamed = {"frame": 0, "type": "rename", "object": 2, "name": "tea v1.2"}
    store._header = replace(store._header, events=[renamed])
    try:
        (file, *_) = exported(store, tmp_path / "e", "exr", objects="2")
    finally:
        store._header = replace(store._header, events=[])
    with OpenEXR.File(str(file), separate_channels=True) as image:
        assert set(image.channels()) == {f"{o}{c}" for o in ("", "tea_v1_2.") for c in "RGBA"}


def test_missing_library_is_a_sentence(exact, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(ConfigError, match=r"maskstream\[editors\]"):
        exported(exact[2], tmp_path / "e", "exr")


@pytest.mark.parametrize("name", ["png-rgba", "png-rgba-16", "exr"])
def test_damaged_image_is_reported(exact, tmp_path, monkeypatch, name):
    kind = FORMATS[name].open(_job(exact[2], tmp_path / "probe"))
    kind.close()
    finish = type(kind).finish

    def finish_and_damage(self):
        finish(self)
        file = max(self._job.output.path.glob(f"*{self.suffix}"))
        file.write_bytes(file.read_bytes()[:-400])

    monkeypatch.setattr(type(kind), "finish", finish_and_damage)
    with pytest.raises(StoreError, match="read back"):
        exported(exact[2], tmp_path / "p", name)


def _job(store: MaskStore, place):
    from pathlib import Path

    from maskstream.pipeline.exports.frames import ExportObject
    from maskstream.pipeline.exports.job import ExportJob
    from maskstream.pipeline.exports.names import NameTemplate
    from maskstream.pipeline.exports.output import Output

    objects = (ExportObject(1), ExportObject(2))
    names = NameTemplate("{frame}", "c")
    video = Path(store.source.name)
    return ExportJob(Output(place, place), store.source, objects, store.indices, names, video)


def test_broken_off_folder_goes_on(exact, tmp_path, monkeypatch, cli):
    write = PngCutOuts.write
    command = ["export", exact[2].path, "--format", "png-rgba", "-o", tmp_path / "p"]

    def stop(self, frame):
        if frame.row == 2:
            raise KeyboardInterrupt
        write(self, frame)

    with monkeypatch.context() as patched:
        patched.setattr(PngCutOuts, "write", stop)
        assert cli(*command)[0] == 130
    code, out, err = cli(*command)
    assert code == 0, err
    assert "2 files existed already" in out.replace("\n", " ")
