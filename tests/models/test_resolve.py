"""From what a user calls a model to a folder: cached, or a sentence that says what is missing."""

import hashlib
import shutil
from importlib.util import find_spec

import pytest

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.models import resolve
from maskstream.pipeline.models.find import EMBEDDED, find_checkpoint
from maskstream.pipeline.models.resolve import resolve_model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the user's with a (made-up) checkpoint of TinySAM in it."""
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path))
    checkpoint = tmp_path / "weights" / "tinysam_42.3.pth"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("efficientvit_sam_l0", "did you mean efficientvit-sam-l0 or .*? Give the name"),
        ("nowhere.pt", r"'nowhere\.pt': give the name .*\(lite\).*, an existing checkpoint file"),
    ],
)
def test_an_unknown_model_is_a_sentence_with_names_like_it(name, says):
    with pytest.raises(ModelError, match=says):
        resolve_model(name, no_images, print)


def no_images(count: int):
    raise AssertionError("nothing is to be quantized")


def test_embedded_names_and_folders_are_taken_as_they_are(tmp_path):
    assert resolve_model("lite", no_images, print) == EMBEDDED / "lite"
    shutil.copytree(EMBEDDED / "lite", tmp_path / "mine")
    assert resolve_model(str(tmp_path / "mine"), no_images, print) == tmp_path / "mine"


def test_quantized_once_it_comes_from_the_cache_by_content(cache, monkeypatch):
    digest = hashlib.sha256(b"weights").hexdigest()[:12]
    folder = cache / "models" / f"tinysam-{digest}"
    shutil.copytree(EMBEDDED / "lite", folder)
    monkeypatch.setattr(resolve, "find_spec", lambda name: None)  # as if torch were not there
    assert resolve_model("tinysam", no_images, print) == folder
    path = str(cache / "weights" / "tinysam_42.3.pth")
    with pytest.raises(ModelError, match=r"maskstream\[train\]"):
        resolve_model(path, no_images, print)


def test_quantizing_needs_the_training_extra(cache, monkeypatch):
    monkeypatch.setattr(
        resolve, "find_spec", lambda name: None if name == "nncf" else find_spec(name)
    )
    with pytest.raises(ModelError, match=r"tinysam on first use needs nncf: pip install"):
        resolve_model("tinysam", no_images, print)


def test_refused_on_first_use_it_says_which_command_helps(cache, monkeypatch):
    def refuse(*args: object, **options: object) -> None:
        raise ModelError("the quantized model is refused: mask IoU 0.9 is below 0.97")

    monkeypatch.setattr("maskstream.pipeline.models.checkpoint.load_network", lambda *_: None)
    monkeypatch.setattr("maskstream.pipeline.quantization.quantize.quantize", refuse)
    with pytest.raises(ModelError, match=r"0\.9 is below.*'quantize --checkpoint tinysam .*MODEL"):
        resolve_model("tinysam", lambda count: [], print)
    assert not (cache / "models").exists()


def test_stopped_on_first_use_it_says_that_nothing_is_kept(cache, monkeypatch):
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("maskstream.pipeline.models.checkpoint.load_network", lambda *_: None)
    monkeypatch.setattr("maskstream.pipeline.quantization.quantize.quantize", stop)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        resolve_model("tinysam", lambda count: [], said.append)
    assert said[-1].startswith("stopped; nothing of tinysam is kept")
    assert not (cache / "models").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mobilesam", r"weights get mobilesam' \(from https://.*/mobile_sam\.pt"),
        ("nonsense", "no checkpoint called 'nonsense'; there are"),
        ("sam_vit_x", r"did you mean sam-vit-\w( or sam-vit-\w)*\? There are"),
    ],
)
def test_checkpoint_that_is_not_here_is_a_sentence(cache, name, says):
    with pytest.raises(ModelError, match=says):
        find_checkpoint(name)
