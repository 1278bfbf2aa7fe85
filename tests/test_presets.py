"""The presets: complete, readable, and what `run --preset` takes."""

from pathlib import Path

import pytest
import yaml

from maskstream.pipeline.cli.options import Preset
from maskstream.pipeline.config import PipelineConfig, load_config

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "configs"


def keys(values, prefix=""):
    """Every key of nested sections, dotted."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")


@pytest.mark.parametrize("name", sorted(Preset))
def test_preset_names_every_key_and_says_what_it_is(name):
    text = (SHIPPED / f"{name}.yaml").read_text()
    assert set(keys(yaml.safe_load(text))) == set(keys(PipelineConfig().model_dump(mode="json")))
    settings = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line for line in settings if "#" not in line and not line.endswith(":")] == []


def test_every_shipped_preset_can_be_chosen():
    assert {file.stem for file in SHIPPED.glob("*.yaml")} == {"default", *Preset}


def test_balanced_is_the_default():
    assert load_config(SHIPPED / "balanced.yaml") == PipelineConfig()


def test_presets_are_ordered_by_how_often_the_encoder_runs():
    intervals = [load_config(SHIPPED / f"{name}.yaml").keyframes.interval for name in Preset]
    assert intervals == sorted(intervals, reverse=True)
    assert intervals[-1] == 1


@pytest.mark.parametrize("name", ["fast", "balanced", "quality"])
def test_default_values_told_in_comments_are_the_defaults(name):
    """Where a preset differs, its comment ends on `default VALUE)`."""
    defaults = PipelineConfig().model_dump(mode="json")
    chosen = load_config(SHIPPED / f"{name}.yaml").model_dump(mode="json")
    text = (SHIPPED / f"{name}.yaml").read_text()
    told = {
        line.split(":")[0].strip(): yaml.safe_load(line.rsplit("default ", 1)[1].rstrip(")"))
        for line in text.splitlines()
        if line.endswith(")") and "default " in line
    }
    differs = {
        key: value
        for section, values in defaults.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if chosen[section][key] != value
    }
    assert told == differs


def test_preset_reaches_the_run_and_excludes_a_configuration(cli, tmp_path):
    code, _, err = cli("run", "nowhere.mp4", "-o", tmp_path / "o.zarr", "--preset", "fast")
    assert (code, "nowhere.mp4" in err) == (1, True)
    options = ("--preset", "fast", "--config", ROOT / "configs" / "default.yaml")
    code, _, err = cli("run", "nowhere.mp4", "-o", tmp_path / "o.zarr", *options)
    assert (code, "exclude each other" in err) == (1, True)
    code, _, err = cli("run", "nowhere.mp4", "-o", tmp_path / "o.zarr", "--preset", "best")
    assert (code, "quality" in err) == (2, True)
