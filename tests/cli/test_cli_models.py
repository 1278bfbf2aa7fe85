"""`weights` and `quantize` on the command line."""

import cv2
import pytest
import torch

from maskstream.pipeline.cli.first_use import _images
from maskstream.pipeline.segmenter.sam import build
from maskstream.pipeline.weights.registry import Registry
from tests.support.media import moving_shapes


def test_weights_are_listed_with_their_licenses(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = cli("weights", "list")
    assert code == 0
    for entry in Registry.published().entries():
        assert entry.name in out
        assert entry.license in out
    assert "non-commercial" in out


def test_addresses_are_whole_lines(cli):
    _, out, _ = cli("weights", "list", "--addresses")
    lines = [line.split() for line in out.splitlines()]
    assert ["efficient-sam-s", Registry.published().url_of("efficient-sam-s")] in lines
    assert len(lines) == len(Registry.published().entries())


def test_importing_what_may_not_be_used_commercially_says_so(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path))
    torch.save(build("edge-sam").state_dict(), tmp_path / "any.pth")
    code, out, err = cli("weights", "import", str(tmp_path / "any.pth"))
    assert (code, out.split(":")[0]) == (0, "edge-sam")
    assert "may not be used commercially" in err


def test_path_follows_the_cache(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path))
    code, out, _ = cli("weights", "path", "tinysam")
    assert (code, out.strip()) == (0, str(tmp_path / "weights" / "tinysam_42.3.pth"))


@pytest.mark.parametrize(("own", "said"), [(2, "with 3 frames of the demo clip"), (9, "")])
def test_first_use_takes_the_demo_s_clip_where_there_is_little_else(tmp_path, capsys, own, said):
    frames, _ = moving_shapes(own, (48, 64), shapes=1)
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{number}.png"), frame)
    images = _images(str(tmp_path / "%d.png"), 5 if said else 9)
    assert [p.shape == (48, 64, 3) for p in images] == [True] * own + [False] * (3 if said else 0)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("weights", "path", "nonsense"), "no checkpoint called 'nonsense'"),
        (("weights", "import", "/nowhere.pth"), "/nowhere.pth"),
        (("quantize", "--checkpoint", "mobilesam", "--calibration", "x.mp4"), "weights get"),
        (("eval", "video", "--generated", "--model", "sam-vit-b"), "weights get sam-vit-b"),
        (("run", "x.mp4", "--model", "sam_vit_b"), "did you mean sam-vit-b"),
        (("quantize", "--checkpoint", "a", "--calibration", "b", "--method", "guess"), "nncf"),
    ],
)
def test_bad_calls_are_one_sentence(cli, tmp_path, monkeypatch, arguments, word):
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path))
    if arguments[0] in ("quantize", "run"):
        arguments = (*arguments, "-o", str(tmp_path / "out"))
    code, _, err = cli(*arguments)
    assert code == 1
    assert err.startswith("error: ")
    assert word in err
