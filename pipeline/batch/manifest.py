"""Manifests: tables with a video a row, read as they go (CSV, JSON lines, Parquet).

Columns: `input` and, each optional, `output` (name below the output folder), `prompts`, `start`,
`end`, `split_shots`. Other columns are ignored. Relative paths are relative to the manifest.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from maskstream.pipeline.batch.files import opened
from maskstream.pipeline.errors import ConfigError, SourceNotFoundError
from maskstream.pipeline.extras import need

SUFFIXES = frozenset({".csv", ".jsonl", ".ndjson", ".parquet"})
COLUMNS = ("input", "output", "prompts", "start", "end", "split_shots")
_ROWS_PER_BATCH = 1024

Row: TypeAlias = Mapping[str, str]


def is_manifest(target: str) -> bool:
    """Whether an input is a manifest, by its suffix."""
    return PurePosixPath(target).suffix.lower() in SUFFIXES


def read_manifest(manifest: str) -> Iterator[Row | str]:
    """Yield the rows of a manifest: its known columns that are not empty, or what is wrong.

    A batch of rows is in memory at a time.

    Raises:
        ConfigError: it cannot be read, or has no column `input`.
        MissingExtraError: it is a Parquet file, and pyarrow is not installed.
    """
    read = {".csv": _csv, ".parquet": _parquet}
    rows = read.get(PurePosixPath(manifest).suffix.lower(), _json_lines)
    try:
        yield from rows(manifest)
    except (OSError, SourceNotFoundError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"the manifest {manifest} cannot be read: {error}") from error


def _csv(manifest: str) -> Iterator[Row | str]:
    with opened(manifest) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.DictReader(text)
        _check_columns(manifest, reader.fieldnames or ())
        for row in reader:
            yield _known(row)


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
            is_object = isinstance(row, dict)
            yield _known(row) if is_object else f"{manifest}, line {number}: not a JSON object"


def _parquet(manifest: str) -> Iterator[Row | str]:
    parquet = need("pyarrow.parquet", "a Parquet manifest", "pip install 'maskstream[batch]'")
    arrow = need("pyarrow", "a Parquet manifest", "pip install 'maskstream[batch]'")
    with opened(manifest) as file:
        try:
            table = parquet.ParquetFile(file)
        except arrow.ArrowInvalid as error:
            raise ConfigError(f"the manifest {manifest} is not a Parquet file: {error}") from error
        names = table.schema_arrow.names
        _check_columns(manifest, names)
        columns = [name for name in COLUMNS if name in names]
        for batch in table.iter_batches(batch_size=_ROWS_PER_BATCH, columns=columns):
            yield from map(_known, batch.to_pylist())


def _check_columns(manifest: str, names: Any) -> None:
    if "input" not in names:
        given = ", ".join(map(str, names)) or "none"
        raise ConfigError(f"the manifest {manifest} has no column input (it has: {given})")


def _known(row: Mapping[str, Any]) -> Row:
    """The known columns of a row as text; numbers are frame indices."""
    values = {name: row.get(name) for name in COLUMNS}
    return {name: str(value) for name, value in values.items() if value not in (None, "")}
