"""Models that cannot be used: one sentence that says what is wrong, before anything runs."""

import shutil
from pathlib import Path

import pytest

import maskstream
from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.models.find import EMBEDDED
from tests.support.media import moving_shapes, write_video

SIZE_HW = (90, 160)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the embedded model, for a test to damage."""
    return Path(shutil.copytree(EMBEDDED / "lite", tmp_path / "copy"))


def without(*files):
    def damage(folder):
        for file in files:
            (folder / file).unlink()

    return damage


def card(content):
    return lambda folder: (folder / "model.yaml").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without("model.yaml"), "it has no model.yaml"),
        (without("encoder.xml", "decoder.xml"), "encoder.onnx and decoder.onnx"),
        (without("decoder.xml"), "is not whole"),
        (without("encoder.bin"), "cannot load"),
        (card(b"name: ["), "model.yaml cannot be used: while parsing"),
        (card(b"name: 3\nsize: 4"), "name: Input should be a valid string"),
        (card(b"\xff\xfe\x00"), "model.yaml cannot be used"),
        (card(b""), "model.yaml cannot be used"),
    ],
)
def test_a_damaged_folder_is_answered_with_one_line(folder, damage, said):
    damage(folder)
    with pytest.raises(ModelError) as told:
        maskstream.open_model(folder, SIZE_HW)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_the_command_line_prints_it(cli, folder, tmp_path):
    without("encoder.xml")(folder)
    clip = write_video(tmp_path / "clip.mp4", moving_shapes(1, SIZE_HW, shapes=1)[0])
    for command in (("run", clip, "-o", tmp_path / "x.zarr"), ("everything", clip)):
        code, _, err = cli(*command, "--model", folder)
        assert (code, err.count("\n")) == (1, 1)
        assert err.startswith("error: the folder")
    assert not (tmp_path / "x.zarr").exists()


def test_a_checkpoint_is_not_opened_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path))
    (tmp_path / "own.pt").write_bytes(b"weights")
    with pytest.raises(ModelError, match="quantize --checkpoint"):
        maskstream.open_model(tmp_path / "own.pt", SIZE_HW)
    with pytest.raises(ModelError, match="weights get tinysam"):
        maskstream.Predictor("tinysam")
