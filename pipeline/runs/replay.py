"""Replay a session of the page: run its jobs one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from maskstream.pipeline.addresses import is_url
from maskstream.pipeline.engine.pipeline import Pipeline
from maskstream.pipeline.errors import ConfigError, StoreExistsError
from maskstream.pipeline.prompts import PromptLog
from maskstream.pipeline.runs.retrack import for_job, run_job
from maskstream.pipeline.sources.seekable import open_seekable
from maskstream.pipeline.store import MaskStore


def replay_session(
    pipeline: Pipeline,
    source: Path,
    log: PromptLog,
    output: str,
    *,
    overwrite: bool,
    models: Mapping[str, Pipeline] | None = None,
) -> int:
    """Run the jobs of a session's log, the last one into `output`; returns their number.

    models: pipelines of the models that jobs name.

    Raises:
        ConfigError: `output` is a URL. StoreExistsError: `output` exists and `overwrite` is false.
        SourceError, PromptError, StoreError: as `run_job`.
    """
    if is_url(output):
        raise ConfigError(
            "a session of the page can only be replayed into a local folder, not a URL"
        )
    if not overwrite and Path(output).exists():
        raise StoreExistsError(f"{output} already exists; give --overwrite to replace it.")
    video = open_seekable(source)
    with TemporaryDirectory(dir=Path(output).absolute().parent, prefix=".replay-") as folder:
        before: MaskStore | None = None
        for number, job in enumerate(log.tracking, start=1):
            is_last = number == len(log.tracking)
            target = Path(output) if is_last else Path(folder) / f"{number}.zarr"
            chosen = pipeline if job.model is None else (models or {})[job.model]
            run_job(for_job(chosen, job), video, job, before, target)
            before = MaskStore(target)
    video.close()
    return len(log.tracking)
