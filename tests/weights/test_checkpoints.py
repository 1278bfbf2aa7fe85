"""Checkpoint files: what loads, and what is refused with which sentence."""

from __future__ import annotations

import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.models.checkpoint import load_network
from maskstream.pipeline.segmenter.sam import build
from maskstream.pipeline.weights.checkpoints import load_checkpoint, load_into


def state_dict() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


def save_zipped(path: Path) -> None:
    """As EfficientSAM-S is published, made by a Mac."""
    torch.save({"model": state_dict()}, path.with_name("weights.pt"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path.with_name("weights.pt"), "weights.pt")
        archive.writestr("__MACOSX/._weights.pt", b"attributes")


@pytest.mark.parametrize(
    "save",
    [
        pytest.param(lambda path: torch.save(state_dict(), path), id="plain"),
        pytest.param(lambda path: torch.save({"state_dict": state_dict()}, path), id="state_dict"),
        pytest.param(
            lambda path: torch.save({"model": state_dict(), "step": 3}, path), id="training"
        ),
        pytest.param(
            lambda path: torch.save(state_dict(), path, _use_new_zipfile_serialization=False),
            id="torch_before_1.6",
        ),
        pytest.param(lambda path: save_file(state_dict(), path), id="safetensors"),
        pytest.param(save_zipped, id="zipped"),
    ],
)
def test_a_state_dict_survives_the_disk(tmp_path: Path, save: Callable[[Path], None]) -> None:
    path = tmp_path / "weights.pth"
    save(path)
    loaded = load_checkpoint(path)
    torch.testing.assert_close(loaded, state_dict(), rtol=0, atol=0)

    layer = nn.Linear(3, 2)
    load_into(layer, loaded)
    torch.testing.assert_close(dict(layer.state_dict()), state_dict(), rtol=0, atol=0)


def save_truncated(path: Path) -> None:
    torch.save(state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("save", "reason"),
    [
        (lambda path: None, "no checkpoint file"),
        (lambda path: path.mkdir(), "no checkpoint file"),
        (lambda path: path.write_bytes(b""), "damaged or not a checkpoint"),
        (lambda path: path.write_bytes(b"<html>404</html>"), "damaged or not a checkpoint"),
        (lambda path: path.write_bytes(b"\0\xff\0\0\0\0\0\0{"), "damaged or not a checkpoint"),
        (save_truncated, "damaged or not a checkpoint"),
        (lambda path: torch.save(torch.ones(2), path), "no state dict"),
        (lambda path: torch.save({}, path), "no state dict"),
        (lambda path: torch.save({"a": torch.ones(2), "lr": 0.1}, path), "lr is not a tensor"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, save: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "weights.pth"
    save(path)
    with pytest.raises(ModelError, match=reason):
        load_checkpoint(path)


class RunsCode:
    """A pickle that would create a file when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return (Path.touch, (self.trace,))


def save_zipped(path: Path) -> None:
    """As EfficientSAM-S is published, made by a Mac."""
    torch.save({"model": state_dict()}, path.with_name("weights.pt"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path.with_name("weights.pt"), "weights.pt")
        archive.writestr("__MACOSX/._weights.pt", b"attributes")


@pytest.mark.parametrize(
    "save",
    [
        pytest.param(lambda path: torch.save(nn.Linear(3, 2), path), id="module"),
        pytest.param(
            lambda path: torch.save(nn.Linear(3, 2), path, _use_new_zipfile_serialization=False),
            id="module_before_1.6",
        ),
        pytest.param(
            lambda path: torch.save({"w": RunsCode(path.with_name("trace"))}, path), id="code"
        ),
        pytest.param(
            lambda path: path.write_bytes(pickle.dumps(RunsCode(path.with_name("trace")), 2)),
            id="bare_pickle",
        ),
    ],
)
def test_pickled_objects_are_refused_unopened(tmp_path: Path, save: Callable[[Path], None]) -> None:
    path = tmp_path / "weights.pth"
    save(path)
    with pytest.raises(ModelError, match="only tensors are loaded; ask for the state_dict file"):
        load_checkpoint(path)
    assert not (tmp_path / "trace").exists()


def test_safetensors_without_the_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModelError, match="install the package safetensors"):
        load_checkpoint(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bias": None}, "missing: bias"),
        ({"scale": torch.ones(1)}, "unknown: scale"),
        ({"weight": torch.ones(3, 2)}, r"of another shape: weight \(3, 2\) instead of \(2, 3\)"),
        ({f"k{i}": torch.ones(1) for i in range(9)}, "unknown: k0, k1, k2, k3 and 5 more"),
    ],
)
def test_a_misfit_names_its_keys_and_changes_nothing(
    change: dict[str, Tensor | None], sentence: str
) -> None:
    state = {k: v for k, v in (state_dict() | change).items() if v is not None}
    layer = nn.Linear(3, 2)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    with pytest.raises(ModelError, match=sentence):
        load_into(layer, state)
    torch.testing.assert_close(dict(layer.state_dict()), before, rtol=0, atol=0)


def test_normalization_constants_are_left_out() -> None:
    layer = nn.Linear(3, 2)
    load_into(layer, state_dict() | {"pixel_mean": torch.ones(3), "pixel_std": torch.ones(3)})
    torch.testing.assert_close(dict(layer.state_dict()), state_dict())


def test_a_published_file_is_known_by_its_keys(tmp_path: Path) -> None:
    state = build("tinysam").state_dict()
    torch.save({"state_dict": state}, tmp_path / "any.pt")
    assert load_network(tmp_path / "any.pt").architecture.name == "tinysam"
    assert load_network(tmp_path / "any.pt", "mobilesam").architecture.name == "mobilesam"
    with pytest.raises(ModelError, match=r"holds weights of tinysam, not of efficientvit-sam-l0"):
        load_network(tmp_path / "any.pt", "efficientvit-sam-l0")

    del state["image_encoder.neck.0.weight"]
    torch.save(state, tmp_path / "wrong.pt")
    with pytest.raises(ModelError, match=r"say which network .*efficientvit-sam-l0.*sam-vit-h"):
        load_network(tmp_path / "wrong.pt")
    with pytest.raises(ModelError, match=r"missing: image_encoder\.neck\.0\.weight"):
        load_network(tmp_path / "wrong.pt", "tinysam")
