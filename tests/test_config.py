"""The configuration: defaults, files, overrides, refusals."""

from pathlib import Path

import pytest

from maskstream.pipeline.config import RENAMED_KEYS, PipelineConfig, load_config
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.lab.training.config import RENAMED_KEYS as RENAMED_TRAINING_KEYS
from maskstream.pipeline.lab.training.config import load_train_config

CONFIGS = Path(__file__).parent.parent / "configs"


def test_default_file_names_every_key_with_its_default():
    import yaml

    written = yaml.safe_load((CONFIGS / "default.yaml").read_text())
    assert written == PipelineConfig().model_dump(mode="json")


@pytest.mark.parametrize("file", sorted((CONFIGS / "train").glob("*.yaml")), ids=lambda p: p.name)
def test_training_configurations_are_valid(file):
    assert load_train_config(file).steps > 0


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("keyframes.interval=9", "keyframes", "interval", 9),
        ("seeding.enabled=false", "seeding", "enabled", False),
        ("tracking.score_min=0.25", "tracking", "score_min", 0.25),
    ],
)
def test_override_sets_one_key(override, section, key, value):
    config = load_config(CONFIGS / "default.yaml", [override])
    assert getattr(getattr(config, section), key) == value


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["keyframes.intervall=9"], "keyframes.intervall: no such key"),
        (["keyframes.shortest=9"], "keyframes.shortest: its name is keyframes.interval_min now"),
        (["keyframes.interval=0"], "keyframes.interval"),
        (["nonsense"], "not of the form"),
        (["model.size=3"], "model"),
        (["keyframes.interval=[1"], "cannot be read"),
        (["model=lite", "model.size=3"], "which is a value"),
    ],
)
def test_wrong_override_is_a_sentence(overrides, says):
    with pytest.raises(ConfigError, match=says.replace(".", r"\.")):
        load_config(None, overrides)


def test_every_renamed_key_has_a_name_now():
    values = PipelineConfig().model_dump()
    for old, new in RENAMED_KEYS.items():
        section, key = new.split(".")
        assert key in values[section]
        with pytest.raises(ConfigError, match=f"{old}: its name is {new} now".replace(".", r"\.")):
            load_config(None, [f"{old}=1"])


def test_renamed_key_of_a_training_configuration_is_a_sentence(tmp_path):
    file = tmp_path / "train.yaml"
    for old, new in RENAMED_TRAINING_KEYS.items():
        file.write_text(f"name: x\nsteps: 1\n{old}: 1\n")
        with pytest.raises(ConfigError, match=f"{old}: its name is {new} now"):
            load_train_config(file)


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", None])
def test_wrong_file_is_a_sentence(tmp_path, content):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_config(path)
