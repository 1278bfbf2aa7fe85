"""Which device is chosen, and what is said where the wanted one is missing."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
import yaml

from maskstream.pipeline.cli import main
from maskstream.pipeline.config import PipelineConfig, load_config
from maskstream.pipeline.errors import ConfigError, ModelError
from maskstream.pipeline.models.open import open_segmenter
from maskstream.pipeline.quantization.export import architecture_of
from maskstream.pipeline.segmenter import devices, torch_segmenter
from maskstream.pipeline.segmenter.devices import choose_device
from maskstream.pipeline.segmenter.sam import build
from maskstream.pipeline.segmenter.torch_segmenter import TorchSegmenter
from tests.support.media import moving_shapes, write_video

SIZE_HW = (90, 160)


@pytest.fixture
def pretend(monkeypatch):
    """Let the machine have a version of torch (None: no torch) and a CUDA device or none."""

    def found(torch_version: str | None, device: bool = False) -> None:
        def version(_: str) -> str:
            if torch_version is None:
                raise PackageNotFoundError
            return torch_version

        monkeypatch.setattr(devices, "version", version)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: device)

    return found


@pytest.mark.parametrize(
    ("version", "device", "chosen"),
    [
        (None, False, "cpu"),
        ("2.13.0+cpu", True, "cpu"),
        ("2.13.0+cu130", False, "cpu"),
        ("2.13.0", True, "cuda"),
    ],
)
def test_auto_takes_cuda_where_torch_finds_it(pretend, version, device, chosen):
    pretend(version, device)
    assert choose_device("auto") == chosen


def test_cpu_asks_for_nothing(pretend):
    pretend(None)
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (None, r"torch is not installed .*maskstream\[train\]"),
        ("2.13.0+cpu", r"torch 2\.13\.0\+cpu is built for the CPU only"),
        ("2.13.0+cu130", r"torch 2\.13\.0\+cu130, built for .*, finds no CUDA device"),
    ],
)
def test_missing_cuda_is_a_sentence_that_names_what_was_found(pretend, version, says):
    pretend(version)
    with pytest.raises(ModelError, match=says):
        choose_device("cuda")


def test_wrong_device_is_a_sentence():
    with pytest.raises(ConfigError, match="device: Input should be 'cpu', 'cuda' or 'auto'"):
        load_config(None, ["device=tpu"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder without its graphs."""
    card = architecture_of(build("lite")) | {"method": "fp32"}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(card))
    return tmp_path


def test_cuda_refuses_a_folder_of_graphs(pretend, folder):
    pretend("2.13.0", device=True)
    config = PipelineConfig(model=str(folder), device="cuda")
    with pytest.raises(ModelError, match="give a checkpoint file"):
        open_segmenter(config, folder, SIZE_HW)


def test_auto_runs_a_folder_of_graphs_on_the_cpu(pretend, folder):
    pretend("2.13.0", device=True)
    config = PipelineConfig(model=str(folder), device="auto")
    with pytest.raises(ModelError, match="OpenVINO cannot load"):
        open_segmenter(config, folder, SIZE_HW)


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_checkpoint_on_cuda_becomes_a_torch_segmenter(pretend, monkeypatch, tmp_path, device):
    pretend("2.13.0", device=True)
    asked = []

    def on_the_cpu(network, frame_hw, wanted):
        asked.append(wanted)
        return TorchSegmenter(network, frame_hw, "cpu")

    monkeypatch.setattr(torch_segmenter, "TorchSegmenter", on_the_cpu)
    file = tmp_path / "last.pt"
    torch.save({"average": build("lite").state_dict(), "config": {"model": "lite"}}, file)
    segmenter = open_segmenter(PipelineConfig(model=str(file), device=device), file, SIZE_HW)
    assert isinstance(segmenter, TorchSegmenter)
    assert segmenter.card.name == "lite"
    assert asked == ["cuda"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_run_on_a_missing_device_is_one_sentence_and_leaves_no_store(monkeypatch, capsys, tmp_path):
    clip, store = tmp_path / "clip.mp4", tmp_path / "o.zarr"
    write_video(clip, moving_shapes(2, SIZE_HW, shapes=1, seed=1)[0])
    command = ["maskstream", "run", clip, "-o", store, "--device", "cuda", "--quiet"]
    monkeypatch.setattr("sys.argv", [str(word) for word in command])
    with pytest.raises(SystemExit) as ended:
        main()
    err = capsys.readouterr().err
    assert ended.value.code == 1
    assert err.startswith("error: device cuda cannot be used: torch ")
    assert err.count("\n") == 1
    assert not store.exists()
