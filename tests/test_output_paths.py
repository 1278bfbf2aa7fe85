"""No command writes over what it reads, nor over other files unasked."""

import os

import pytest

from maskstream.pipeline.errors import ConfigError, StoreError, StoreExistsError
from maskstream.pipeline.exports.export import export
from maskstream.pipeline.output_paths import check_file, check_outputs
from tests.support.media import moving_shapes, write_images, write_video


@pytest.fixture
def place(tmp_path):
    """A clip, a folder of images and links to both."""
    frames, _ = moving_shapes(4, (48, 64), shapes=1)
    write_video(tmp_path / "clip.mp4", frames)
    write_images(tmp_path / "shot", frames)
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    os.link(tmp_path / "clip.mp4", tmp_path / "hard.mp4")
    (tmp_path / "linked").symlink_to("shot")
    (tmp_path / "new").mkdir()
    return tmp_path


CASES = [
    ("clip.mp4", "clip.mp4", "is"),
    ("link.mp4", "clip.mp4", "is"),
    ("clip.mp4", "link.mp4", "is"),
    ("hard.mp4", "clip.mp4", "is"),
    ("new/../clip.mp4", "clip.mp4", "is"),
    ("shot", "shot", "is"),
    ("linked", "shot", "is"),
    (".", "clip.mp4", "contains"),
    ("shot", "shot/%d.png", "contains"),
    ("shot", "shot/*.png", "contains"),
    ("shot", "shot/2.png", "contains"),
    ("shot/2.png", "shot/%d.png", "is"),
    ("shot/masks.zarr", "shot", "lies inside"),
    ("linked/deeper/masks.zarr", "shot", "lies inside"),
]


@pytest.mark.parametrize(("output", "given", "words"), CASES)
def test_an_output_that_would_destroy_an_input_is_refused(place, output, given, words):
    with pytest.raises(ConfigError, match=f"{words} the input"):
        check_outputs([place / output], [place / given])


@pytest.mark.parametrize(
    ("output", "given"),
    [
        ("overlay.mp4", "clip.mp4"),
        ("clip.zarr", "clip.mp4"),
        ("shot-masks", "shot"),
        ("shot/masks.zarr", "shot/*.png"),
        ("missing", "missing"),
        ("s3://bucket/clip.mp4", "clip.mp4"),
    ],
)
def test_other_outputs_are_accepted(place, output, given):
    check_outputs([output if "://" in output else place / output, None], [place / given, None])


def test_outputs_must_differ(place):
    with pytest.raises(ConfigError, match="overlap"):
        check_outputs([place / "new" / "o.zarr", place / "new"], [])


def test_a_file_is_replaced_only_when_asked(place):
    with pytest.raises(StoreExistsError, match="--overwrite"):
        check_file(place / "clip.mp4", "overlay", replace=False)
    with pytest.raises(StoreExistsError, match="is a folder"):
        check_file(place / "new", "overlay", replace=True)
    with pytest.raises(StoreError, match="cannot be written"):
        check_file(place / "clip.mp4" / "a.png", "overlay", replace=True)
    check_file(place / "clip.mp4", "overlay", replace=True)
    check_file(place / "further" / "o.mp4", "overlay", replace=False)
    assert list((place / "further").iterdir()) == []


RUNS = [
    ("run", "clip.mp4", "-o", "s.zarr", "--overlay", "clip.mp4"),
    ("run", "clip.mp4", "-o", "s.zarr", "--overlay", "link.mp4", "--overwrite"),
    ("run", "clip.mp4", "-o", "s.zarr", "--contact-sheet", "hard.mp4", "--overwrite"),
    ("run", "shot", "-o", "shot/s.zarr"),
    ("run", "shot", "-o", "s.zarr", "--contact-sheet", "shot/2.png", "--overwrite"),
    ("run", "clip.mp4", "-o", "s.zarr", "--overlay", "s.zarr"),
    ("everything", "shot/2.png", "-o", "shot/2.png", "--overwrite"),
    ("everything", "shot", "-o", "shot", "--overwrite"),
    ("live", "clip.mp4", "-o", "clip.mp4", "--overwrite"),
    ("quantize", "--checkpoint", "clip.mp4", "--calibration", "shot", "-o", "shot"),
    ("import-masks", "shot", "-o", "shot/p.json", "--overwrite"),
]


@pytest.mark.parametrize("command", RUNS, ids=" ".join)
def test_no_command_destroys_its_input(cli, place, command, monkeypatch):
    monkeypatch.chdir(place)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    code, _, err = cli(*command)
    assert code != 0
    assert "input" in err or "overlap" in err
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_a_run_checks_all_its_outputs_first(cli, place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "sheet.png").write_bytes(b"mine")
    outputs = ("--overlay", "new/o.mp4", "--contact-sheet", "sheet.png")
    code, _, err = cli("run", "clip.mp4", "-o", "s.zarr", *outputs)
    assert code != 0
    assert "--overwrite" in err
    assert (place / "sheet.png").read_bytes() == b"mine"
    assert not (place / "s.zarr").exists()
    assert list((place / "new").iterdir()) == []


def test_an_export_keeps_the_video_and_the_store(cli, place, monkeypatch):
    monkeypatch.chdir(place)
    assert cli("run", "clip.mp4", "-o", "s.zarr", "--quiet")[0] == 0
    assert cli("run", "shot", "-o", "i.zarr", "--quiet")[0] == 0
    clip = (place / "clip.mp4").read_bytes()
    for store, output, form in [
        ("s.zarr", "clip.mp4", "overlay"),
        ("s.zarr", "link.mp4", "matte"),
        ("s.zarr", ".", "png"),
        ("i.zarr", "shot", "png"),
        ("i.zarr", "linked", "davis"),
    ]:
        code, _, err = cli("export", store, "-o", output, "--format", form, "--overwrite")
        assert code != 0, output
        assert "would destroy" in err
    with pytest.raises(ConfigError, match="lies inside"):
        export("s.zarr", "s.zarr/png", "png")
    assert (place / "clip.mp4").read_bytes() == clip
    assert sorted(os.listdir(place / "shot")) == [f"{number}.png" for number in range(4)]


def test_a_review_keeps_the_video_and_other_files(cli, place, monkeypatch):
    monkeypatch.chdir(place)
    assert cli("run", "clip.mp4", "-o", "s.zarr", "--quiet")[0] == 0
    clip = (place / "clip.mp4").read_bytes()
    (place / "sheet.png").write_bytes(b"mine")
    for sheet, words in [("clip.mp4", "would destroy"), ("sheet.png", "--overwrite")]:
        code, _, err = cli("review", "s.zarr", "--contact-sheet", sheet)
        assert code != 0
        assert words in err
    assert (place / "clip.mp4").read_bytes() == clip
    assert (place / "sheet.png").read_bytes() == b"mine"
    assert cli("review", "s.zarr", "--contact-sheet", "sheet.png", "--overwrite")[0] == 0
