"""`import maskstream`: what it gives, that it gives it lazily, and that README's snippets run."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import maskstream
from maskstream.pipeline import errors
from tests.support.media import moving_shapes, write_video

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
OBJECTS = [name for name in maskstream.__all__ if name != "__version__"]


def test_heavy_packages_are_not_imported_before_first_use():
    heavy = "av cv2 numpy openvino pydantic torch yaml zarr"
    code = (
        "import sys, maskstream; assert maskstream.__version__; dir(maskstream);"
        f"print([name for name in '{heavy}'.split() if name in sys.modules]);"
        "print([name for name in sys.modules if name.startswith('maskstream.')])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.split("\n") == ["[]", "[]", ""]


def test_type_checkers_are_told_the_same_names():
    tree = ast.parse(Path(maskstream.__file__).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {name: f"maskstream.pipeline.{home}" for name, home in maskstream._HOMES.items()}
    assert told == homes
    assert sorted(OBJECTS) == sorted(homes)
    assert len(set(maskstream.__all__)) == len(maskstream.__all__)


def test_every_error_is_exported():
    public = {
        name
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, errors.MaskstreamError)
    }
    assert {name for name in OBJECTS if name.endswith("Error")} == public


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Pipelien"):
        _ = maskstream.Pipelien
    assert {*maskstream.__all__} <= {*dir(maskstream)}


@pytest.mark.parametrize("name", OBJECTS)
def test_everything_exported_is_documented_and_typed(name):
    found = getattr(maskstream, name)
    members = [found]
    if inspect.isclass(found):
        assert found.__doc__
        assert not found.__doc__.startswith(f"{name}(")  # what a dataclass makes up
        members = [
            member
            for key, member in vars(found).items()
            if not key.startswith("_") and (callable(member) or hasattr(member, "__func__"))
        ]
    for member in members:
        function = getattr(member, "__func__", member)
        if not inspect.isfunction(function):
            continue
        assert function.__doc__, function.__qualname__
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, function.__qualname__
        untyped = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.annotation is inspect.Parameter.empty
            and parameter.name not in ("self", "cls")
        ]
        assert untyped == [], function.__qualname__


def test_the_api_reference_has_every_name():
    pages = "\n".join(page.read_text("utf-8") for page in sorted((ROOT / "docs/api").glob("*.md")))
    rendered = set(re.findall(r"(?m)^::: maskstream\.(\w+)$", pages))
    assert rendered == {name for name in OBJECTS if not name.endswith("Error")}
    assert "::: maskstream.pipeline.errors" in pages
    assert [name for name in sorted(rendered) if f"`{name}`" not in pages] == []


def test_snippets_of_readme_run(cli, tmp_path, monkeypatch):
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) >= 5
    monkeypatch.chdir(tmp_path)
    frames, _ = moving_shapes(4, (240, 400), shapes=2, seed=1)
    write_video(Path("clip.mp4"), frames)
    Path("prompts.json").write_text(
        '{"version": 1, "events": [{"frame": 0, "type": "point", "object": 3, "xy": [200, 120]}]}'
    )
    code, _, told = cli("run", "clip.mp4", "-o", "clip.zarr", "--prompts", "prompts.json")
    assert code == 0, told
    names = {"rgb": frames[0]}
    for snippet in snippets:
        exec(snippet, names)  # noqa: S102
    assert names["answer"].masks[0].shape == frames[0].shape[:2]


def test_segment_everything_and_open_model():
    frames, _ = moving_shapes(1, (96, 160), shapes=2, seed=1)
    found = maskstream.segment_everything(frames[0], points_per_side=16)
    assert found.labels.shape == (96, 160)
    assert sorted({*found.labels.ravel().tolist()} - {0}) == [each.id for each in found.objects]
    segmenter = maskstream.open_model("lite", (96, 160))
    assert segmenter.card.name == "lite"


def test_export_takes_a_format_s_name(tmp_path):
    from tests.support.stores import result, writer

    with writer(tmp_path / "masks.zarr") as store:
        store.append(result(0))
    summary = maskstream.export(tmp_path / "masks.zarr", tmp_path / "labels", "png")
    assert summary.frames == 1
