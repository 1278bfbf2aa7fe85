"""What becomes a task: files, folders, patterns and manifests, their names and their mistakes."""

import json
from itertools import islice

import pyarrow as pa
import pyarrow.parquet
import pytest

from maskstream.pipeline.batch.inputs import check_outside, tasks_of
from maskstream.pipeline.batch.manifest import read_manifest
from maskstream.pipeline.errors import ConfigError, SourceNotFoundError

ROWS = [
    {"input": "a.mp4", "output": "first", "prompts": "a.json", "start": "3", "end": ""},
    {"input": "s3://films/b.mov", "output": "", "prompts": "", "start": "", "end": "00:00:10"},
    {"input": "", "output": "", "prompts": "", "start": "", "end": ""},
    {"input": "c.mp4", "output": "../c", "prompts": "", "start": "", "end": ""},
]


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.mp4",
        "a.MOV",
        "deep/a.mp4",
        "deep/notes.txt",
        "shot/0001.png",
        "shot/0002.png",
    ):
        place = tmp_path / "clips" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    (tmp_path / "clips/old.zarr").mkdir()
    (tmp_path / "clips/old.zarr/inner.mp4").touch()
    return tmp_path / "clips"


def names(*inputs):
    return [task.name for task in tasks_of([str(target) for target in inputs])]


def test_a_folder_gives_its_videos_and_its_folders_of_images(folder):
    assert names(folder) == ["a", "b", "deep/a", "shot"]
    assert names(folder / "shot") == ["shot"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*.mp4", ["b"]), ("de*/**/*.mp4", ["deep/a"]), ("deep/*.mp4", ["a"])],
)
def test_a_pattern_names_outputs_by_what_it_leaves_open(folder, pattern, expected):
    assert names(folder / pattern) == expected


def test_inputs_are_numbered_through(folder):
    tasks = list(tasks_of([str(folder / "b.mp4"), str(folder / "shot/%04d.png"), str(folder)]))
    assert [task.number for task in tasks] == list(range(6))
    assert [task.name for task in tasks[:2]] == ["b", "%04d"]


def write_csv(place):
    lines = [",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)]
    place.write_text("\n".join(lines))


def write_json_lines(place):
    place.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")


def write_parquet(place):
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), place)


MANIFESTS = {"m.csv": write_csv, "m.jsonl": write_json_lines, "m.parquet": write_parquet}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_of_all_kinds_give_the_same_tasks(tmp_path, name):
    MANIFESTS[name](tmp_path / name)
    first, second, third, fourth = tasks_of([str(tmp_path / name)])
    assert (first.source, first.prompts) == (f"{tmp_path}/a.mp4", f"{tmp_path}/a.json")
    assert (first.name, first.start, first.end, first.problem) == ("first", "3", None, "")
    assert (second.source, second.name, second.end) == ("s3://films/b.mov", "b", "00:00:10")
    assert "row 3 of the inputs has no input" in third.problem
    assert "../c" in fourth.problem


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_integers_that_pandas_wrote_as_floats_are_positions(tmp_path, kind):
    pandas = pytest.importorskip("pandas")
    rows = {"input": ["a.mp4", "b.mp4"], "start": [2, None], "end": [None, 7]}
    table = pandas.DataFrame(rows | {"seeding.max_objects": [3, None]})
    place = tmp_path / {"csv": "m.csv", "json": "m.jsonl", "parquet": "m.parquet"}[kind]
    options = {"csv": {"index": False}, "json": {"orient": "records", "lines": True}}
    getattr(table, f"to_{kind}")(place, **options.get(kind, {}))
    first, second = tasks_of([str(place)])
    assert (first.start, first.end, second.start, second.end) == ("2", None, None, "7")
    assert [len(task.options) for task in (first, second)] == [1, 0]


def test_a_missing_number_is_not_given_and_a_time_is_kept(tmp_path):
    place = tmp_path / "m.jsonl"
    place.write_text('{"input": "a.mp4", "start": NaN, "end": "2.0"}\n'
                     '{"input": "b.mp4", "start": 2.5, "end": "3.5s"}')  # fmt: skip
    first, second = tasks_of([str(place)])
    assert (first.start, first.end, second.start, second.end) == (None, "2", "2.5", "3.5s")


def test_columns_may_be_keys_of_the_configuration(tmp_path):
    place = tmp_path / "m.csv"
    place.write_text("input,tracking.refine,seeding.max_objects\na.mp4,false,3\nb.mp4,,\n")
    first, second = tasks_of([str(place)])
    assert first.options == ("seeding.max_objects=3", "tracking.refine=false")
    assert second.options == ()


@pytest.mark.parametrize(
    ("said", "expected"), [("true", True), ("No", False), ("", None), (0, False), ("maybe", None)]
)
def test_a_row_says_whether_its_video_is_run_in_parts(tmp_path, said, expected):
    place = tmp_path / "m.jsonl"
    place.write_text(json.dumps({"input": "a.mp4", "split_shots": said}))
    (task,) = tasks_of([str(place)])
    assert task.split_shots is expected
    assert ("maybe" in task.problem) == (said == "maybe")


def test_a_damaged_line_fails_by_itself(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"input": "a.mp4"}\n{"input": \n\n[1]\n{"input": "b.mp4"}\n')
    tasks = list(tasks_of([str(tmp_path / "m.jsonl")]))
    assert [bool(task.problem) for task in tasks] == [False, True, True, False]
    assert "line 2" in tasks[1].problem
    assert "line 4" in tasks[2].problem


def test_a_row_of_a_table_with_too_many_fields_fails_by_itself(tmp_path):
    (tmp_path / "m.csv").write_text("input,output\na,b.mp4,c\nb.mp4,\n")
    first, second = tasks_of([str(tmp_path / "m.csv")])
    assert ("line 2: more fields" in first.problem, second.name) == (True, "b")


def test_a_manifest_is_read_as_it_goes(tmp_path):
    place = tmp_path / "m.jsonl"
    with place.open("w") as file:
        file.writelines(f'{{"input": "{n}.mp4"}}\n' for n in range(100_000))
        file.write("\xff not even text")
    assert len(list(islice(tasks_of([str(place)]), 10))) == 10


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.csv", "video,output\na.mp4,a\n", "no column input"),
        ("m.csv", "", "no column input"),
        ("m.parquet", "PAR0", "not a Parquet file"),
        ("none.csv", None, "there is no manifest"),
        (
            "m.csv",
            "input,owner\na.mp4,x\n",
            "unknown column 'owner': the columns are input,",
        ),
        ("m.jsonl", '{"input": "a.mp4"}\n{"video": "b.mp4"}\n', "line 2, has no column input"),
        ("m.jsonl", '{"input": "a.mp4", "owner": 1}', "line 1, has an unknown column 'owner'"),
    ],
)
def test_an_unusable_manifest_is_a_sentence(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=words):
        list(read_manifest(str(tmp_path / name)))


@pytest.mark.parametrize("target", ["missing.mp4", "*.mkv", "empty"])
def test_inputs_that_match_nothing_are_refused(tmp_path, target):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError):
        list(tasks_of([str(tmp_path / target)]))


def test_results_do_not_become_videos(folder):
    check_outside(str(folder.parent / "out"), [str(folder)])
    check_outside(str(folder), [str(folder / "*.mp4")])
    with pytest.raises(ConfigError, match="inside"):
        check_outside(str(folder / "out"), [str(folder)])


def test_what_a_pattern_matches_in_the_output_is_left_out(folder):
    (folder / "out").mkdir()
    (folder / "out/b.overlay.mp4").touch()
    tasks = tasks_of([str(folder / "**/*.mp4")], str(folder / "out"))
    assert [task.name for task in tasks] == ["b", "deep/a", "old.zarr/inner"]
