"""`config` and `--version`: what comes with the package."""

from importlib.metadata import version

import pytest
import yaml

from maskstream.pipeline.cli.options import Preset
from maskstream.pipeline.config import SHIPPED, PipelineConfig, load_config


def test_version_is_the_distribution_s(cli):
    assert cli("--version") == (0, f"maskstream {version('maskstream')}\n", "")


def test_config_prints_the_default_configuration_with_its_comments(cli, tmp_path):
    code, text, _ = cli("config")
    assert code == 0
    assert text == (SHIPPED / "default.yaml").read_text("utf-8")
    assert yaml.safe_load(text) == PipelineConfig().model_dump(mode="json")
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert load_config(file) == PipelineConfig()


@pytest.mark.parametrize("name", Preset)
def test_config_prints_a_preset(cli, name):
    assert cli("config", "--preset", name)[1] == (SHIPPED / f"{name}.yaml").read_text("utf-8")
