"""Manifests: tables with a video a row, read as they go (CSV, JSON lines, Parquet).

Columns: `input` and, each optional, `output` (name below the output folder), `prompts`, `start`,
`end`, `split_shots`, and keys of the configuration such as `seeding.max_objects`. Relative paths
are relative to the manifest.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from maskstream.pipeline.batch.files import opened
from maskstream.pipeline.errors import ConfigError, SourceNotFoundError
from maskstream.pipeline.extras import need

SUFFIXES = frozenset({".csv", ".jsonl", ".ndjson", ".parquet"})
COLUMNS = ("input", "output", "prompts", "start", "end", "split_shots")
_ROWS_PER_BATCH = 1024
_NOT_TEXT = ("start", "end", "split_shots")  # pandas writes integers as floats where one is missing

Row: TypeAlias = Mapping[str, str]


def is_manifest(target: str) -> bool:
    """Whether an input is a manifest, by its suffix."""
    return PurePosixPath(target).suffix.lower() in SUFFIXES


def read_manifest(manifest: str) -> Iterator[Row | str]:
    """Yield the rows of a manifest: its columns that are not empty, or what is wrong with a row.

    A batch of rows is in memory at a time.

    Raises:
        ConfigError: it cannot be read, has no column `input`, or one that is not known.
        MissingExtraError: it is a Parquet file, and pyarrow is not installed.
    """
    read = {".csv": _csv, ".parquet": _parquet}
    rows = read.get(PurePosixPath(manifest).suffix.lower(), _json_lines)
    try:
        yield from rows(manifest)
    except (FileNotFoundError, SourceNotFoundError) as error:
        raise ConfigError(f"there is no manifest {manifest}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"the manifest {manifest} cannot be read: {error}") from error


def _csv(manifest: str) -> Iterator[Row | str]:
    with opened(manifest) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.DictReader(text)
        _check_columns(f"the manifest {manifest}", reader.fieldnames or ())
        for row in reader:
            is_long = None in row
            where = f"{manifest}, line {reader.line_num}"
            yield f"{where}: more fields than columns" if is_long else _filled(row)


def _json_lines(manifest: str) -> Iterator[Row | str]:
    with opened(manifest) as file, io.TextIOWrapper(file, "utf-8-sig") as text:
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield f"{manifest}, line {number}: not JSON ({error.msg})"
                continue
            if not isinstance(row, dict):
                yield f"{manifest}, line {number}: not a JSON object"
                continue
            _check_columns(f"{manifest}, line {number},", row)
            yield _filled(row)


def _parquet(manifest: str) -> Iterator[Row | str]:
    parquet = need("pyarrow.parquet", "a Parquet manifest", "pip install 'maskstream[batch]'")
    arrow = need("pyarrow", "a Parquet manifest", "pip install 'maskstream[batch]'")
    with opened(manifest) as file:
        try:
            table = parquet.ParquetFile(file)
        except arrow.ArrowInvalid as error:
            raise ConfigError(f"the manifest {manifest} is not a Parquet file: {error}") from error
        _check_columns(f"the manifest {manifest}", table.schema_arrow.names)
        for batch in table.iter_batches(batch_size=_ROWS_PER_BATCH):
            yield from map(_filled, batch.to_pylist())


def _check_columns(where: str, names: Collection[str]) -> None:
    if "input" not in names:
        given = ", ".join(map(str, names)) or "none"
        raise ConfigError(f"{where} has no column input (it has: {given})")
    unknown = [name for name in names if name not in COLUMNS and "." not in name]
    if unknown:
        raise ConfigError(
            f"{where} has an unknown column {unknown[0]!r}: the columns are {', '.join(COLUMNS)}, "
            "and keys of the configuration such as seeding.max_objects"
        )


def _filled(row: Mapping[str, Any]) -> Row:
    """The columns of a row that are not empty, as text; numbers are frame indices."""
    texts = {name: _text(name, value) for name, value in row.items()}
    return {name: text for name, text in texts.items() if text}


def _text(name: str, value: Any) -> str:
    """A value as text, "" if it is missing; a whole float is an integer."""
    if value is None:
        return ""
    if isinstance(value, str) and name not in _NOT_TEXT:
        return value
    if isinstance(value, list | dict):
        return json.dumps(value)
    with suppress(ValueError):
        number = float(value)
        if math.isnan(number):
            return ""
        if not isinstance(value, bool) and number.is_integer():
            return str(int(number))
    return str(value)
