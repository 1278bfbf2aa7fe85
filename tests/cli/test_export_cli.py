"""`export` and `import-masks` as a user meets them: options, refusals, going on, and back again."""

import json
from dataclasses import replace

import pytest

from maskstream.pipeline.cli.export import _FORMATS
from maskstream.pipeline.exports import registry
from maskstream.pipeline.exports.label_images import LabelImages
from maskstream.pipeline.exports.output import MARKER
from maskstream.pipeline.exports.registry import FORMATS
from maskstream.pipeline.prompts import load_prompts
from tests.support import stores
from tests.support.exported import write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("exports") / "o.zarr"
    write_store(path)
    return path


def test_help_lists_every_format():
    assert _FORMATS.split(" (")[0].split(", ") == list(FORMATS)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["00010.png", "00011.png", "00013.png", "00014.png"]),
        (["--start", "11", "--end", "14"], ["00011.png", "00013.png"]),
        (["--start", "0.1s"], ["00013.png", "00014.png"]),
        (["--end", "11", "--frame-offset", "-9"], ["00001.png"]),
        (["--end", "11", "--template", "{source}/{frame}"], ["my_clip/10.png"]),
    ],
)
def test_range_and_names(cli, store, tmp_path, options, names):
    place = tmp_path / "out"
    code, out, err = cli("export", store, "--format", "davis", "-o", place, *options)
    assert code == 0, err
    assert f"{len(names)} frames, 3 objects, read back" in out.replace("\n", " ")
    assert sorted(str(f.relative_to(place)) for f in place.rglob("*.png")) == names


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--format", "docx"], "no format 'docx'; there are davis"),
        (["--objects", "1,cup"], "no object 'cup'"),
        (["--objects", "9"], "1, 3, 7 (tea cup)"),
        (["--start", "15"], "no frame from frame 15 to its end"),
        (["--start", "soon"], "'soon' is not a position"),
        (["--frame-offset", "-11"], "negative"),
        (["--template", "{object}"], "needs {frame}"),
        (["--template", "{name}_{frame}"], "malformed"),
        (["--template", "../{frame}"], "must name a file in the folder"),
        (["--template", "{frame:q}"], "malformed"),
        (["--format", "png-matte", "--template", "{frame}"], "needs {object}"),
        (["--source", "clip.mp4"], "omit --source"),
        (["--format", "coco"], "ends in .json"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_writes_nothing(cli, store, tmp_path, options, sentence):
    given = ["--format", "davis", *options]
    code, _, err = cli("export", store, "-o", tmp_path / "out", *given)
    assert code == 1
    assert sentence in err
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]


def test_a_name_given_by_command_is_used(cli, tmp_path):
    store = tmp_path / "o.zarr"
    write_store(store)
    assert cli("rename", store, 3, "Mug")[0] == 0
    assert cli("rename", store, 7, "")[0] == 0
    code, out, _ = cli("info", store, "--json")
    assert {o["id"]: o["name"] for o in json.loads(out)["objects"]} == {1: "", 3: "Mug", 7: ""}
    place = tmp_path / "m"
    assert cli("export", store, "--format", "png-matte", "--objects", "Mug", "-o", place)[0] == 0
    assert {file.name[:11] for file in place.iterdir()} == {"my_clip_Mug"}
    for object_id, name, says in ((9, "x", "it has 1, 3, 7"), (3, "a\nb", "one line of printable")):
        code, _, err = cli("rename", store, object_id, name)
        assert (code, says in err) == (1, True)


def test_missing_store_and_unwritable_place(cli, store, tmp_path):
    code, _, err = cli("export", tmp_path / "no.zarr", "--format", "davis", "-o", tmp_path / "x")
    assert code == 1
    assert "There is no mask store" in err
    (tmp_path / "file").write_text("in the way")
    for name in ("davis", "coco"):
        place = tmp_path / "file" / "out.json"
        code, _, err = cli("export", store, "--format", name, "-o", place)
        assert code == 1
        assert "cannot be written" in err


def test_number_that_does_not_fit_is_refused(cli, tmp_path):
    with stores.writer(tmp_path / "o.zarr") as written:
        written.append(stores.result(0, ids=(1, 255, 700)))
    code, _, err = cli("export", tmp_path / "o.zarr", "--format", "davis", "-o", tmp_path / "d")
    assert code == 1
    assert "up to 254, not 255, 700" in err
    code, _, err = cli("export", tmp_path / "o.zarr", "--format", "png", "-o", tmp_path / "p")
    assert code == 0, err


def test_nothing_is_overwritten_unasked(cli, store, tmp_path):
    for name, place in (("davis", tmp_path / "d"), ("coco", tmp_path / "c.json")):
        command = ["export", store, "--format", name, "-o", place]
        assert cli(*command)[0] == 0
        file = place / "00010.png" if place.is_dir() else place
        file.write_bytes(b"mine")
        code, _, err = cli(*command)
        assert code == 1
        assert "--overwrite" in err
        assert file.read_bytes() == b"mine"
        assert cli(*command, "--overwrite")[0] == 0
        assert file.read_bytes() != b"mine"


def test_a_mask_store_is_never_written_into(cli, store):
    code, _, err = cli("export", store, "--format", "png", "-o", store, "--overwrite")
    assert code == 1
    assert "would destroy the input" in err


def test_broken_off_export_goes_on_and_keeps_only_what_is_right(cli, store, tmp_path, monkeypatch):
    place, write = tmp_path / "d", LabelImages.write
    command = ["export", store, "--format", "davis", "-o", place]

    def stop_at_13(self, frame):
        if frame.number == 13:
            raise KeyboardInterrupt
        write(self, frame)

    with monkeypatch.context() as patched:
        patched.setattr(LabelImages, "write", stop_at_13)
        code, _, err = cli(*command)
    assert code == 130
    assert "continues" in err
    assert (place / MARKER).is_file()
    (place / "00011.png").write_bytes((place / "00011.png").read_bytes()[:-9])
    code, _, err = cli(*command, "--objects", "1")
    assert code == 1
    assert "was interrupted" in err
    code, out, err = cli(*command)
    assert code == 0, err
    assert "1 files existed already" in out.replace("\n", " ")
    assert not (place / MARKER).exists()
    assert cli("export", store, "--format", "davis", "-o", tmp_path / "e")[0] == 0
    for file in (tmp_path / "e").iterdir():
        assert file.read_bytes() == (place / file.name).read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "davis",
        "coco",
        "coco-ytvis",
        "npz",
        "ome-zarr",
        "cvat",
        "labelme",
        "mots",
        "mot",
        "yolo-seg",
    ],
)
def test_what_reads_back_otherwise_is_reported(cli, store, tmp_path, monkeypatch, name):
    """One bit of what was written changes before it is read: the export fails."""
    wanted = FORMATS[name]

    def damaging(job):
        exporter = wanted.open(job)
        finish = exporter.finish

        def finish_and_damage():
            finish()
            path = job.output.path
            file = max(path.rglob("*.*")) if path.is_dir() else path
            if name == "ome-zarr":
                file = path / "0" / "c" / "0" / "0" / "0"
            data = bytearray(file.read_bytes())
            data[_spot(bytes(data), name)] ^= 1
            file.write_bytes(data)

        exporter.finish = finish_and_damage
        return exporter

    broken = {**FORMATS, name: replace(wanted, open=damaging)}
    monkeypatch.setattr(registry, "FORMATS", broken)
    place = tmp_path / f"out{wanted.suffix}"
    code, _, err = cli("export", store, "--format", name, "-o", place)
    assert code == 1
    assert "read back" in err
    assert not place.is_file()


def _spot(data: bytes, name: str) -> int:
    """A byte that holds pixels."""
    mark = {
        "davis": b"IDAT",
        "coco": b'"counts":"',
        "coco-ytvis": b'"counts":"',
        "npz": b"masks.npy",
        "ome-zarr": data[:60],
        "cvat": b'rle="',
        "labelme": b'"mask": "',
        "mots": b" 60 90 ",
        "mot": b"10,1,",
        "yolo-seg": b"0 0.",
    }[name]
    return (
        data.index(mark)
        + len(mark)
        + (0 if name.startswith("mot") else 40 if name in ("npz", "labelme") else 5)
    )


def test_incomplete_store_is_exported_with_a_note(cli, tmp_path):
    write_store(tmp_path / "o.zarr", complete=False)
    code, _, err = cli("export", tmp_path / "o.zarr", "--format", "mot", "-o", tmp_path / "m.txt")
    assert code == 0
    assert "is not complete, it ends with frame 14" in err.replace("\n", " ")


def test_import_takes_every_nth_frame_and_overwrites_only_when_asked(cli, store, tmp_path):
    cli("export", store, "--format", "png", "-o", tmp_path / "p")
    prompts = tmp_path / "prompts.json"
    command = ["import-masks", tmp_path / "p", "-o", prompts, "--stride", 3]
    assert cli(*command)[0] == 0
    assert load_prompts(prompts).frames == {10, 14}
    code, _, err = cli(*command)
    assert code == 1
    assert "--overwrite" in err
    assert cli(*command, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (lambda p: None, [], "no file or folder"),
        (lambda p: p.mkdir(), [], "no image in"),
        (lambda p: p.mkdir(), ["--format", "docx"], "no format 'docx' to import"),
        (lambda p: p.write_text("{}"), ["--format", "coco"], "no COCO annotations"),
        (lambda p: (p.mkdir(), (p / "a.png").write_text("x")), [], "frame number"),
        (lambda p: (p.mkdir(), (p / "1.png").write_text("x")), [], "cannot be decoded"),
    ],
)
def test_bad_import_is_a_sentence(cli, tmp_path, make, options, sentence):
    make(tmp_path / "in")
    code, _, err = cli("import-masks", tmp_path / "in", "-o", tmp_path / "prompts.json", *options)
    assert code == 1
    assert sentence in err
    assert not (tmp_path / "prompts.json").exists()


def test_coco_of_several_images_needs_track_ids(cli, tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "height": 4, "width": 4} for i in (1, 2)]
    square = [[0, 0, 3, 0, 3, 3, 0, 3]]
    objects = [{"id": i, "image_id": i, "segmentation": square} for i in (1, 2)]
    file = tmp_path / "in.json"
    file.write_text(json.dumps({"images": images, "annotations": objects}))
    code, _, err = cli("import-masks", file, "-o", tmp_path / "prompts.json")
    assert code == 1
    assert "no track_id" in err
    file.write_text(json.dumps({"images": images, "annotations": objects[1:]}))
    code, _, err = cli("import-masks", file, "-o", tmp_path / "prompts.json", "--overwrite")
    assert code == 0, err
    (event,) = load_prompts(tmp_path / "prompts.json").events
    assert (event.frame, event.object) == (2, 1)
