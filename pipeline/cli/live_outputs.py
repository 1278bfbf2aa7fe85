"""Outputs of the command `live`: publishers, stores, preview pages and metrics of its cameras."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from maskstream.pipeline.addresses import is_url
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.camera_names import own_path
from maskstream.pipeline.live.endpoints import parse_endpoint

if TYPE_CHECKING:
    from maskstream.pipeline.live.cameras import LiveCameras
    from maskstream.pipeline.live.session import LiveSession
    from maskstream.pipeline.types import Sink, SourceInfo


@dataclass(frozen=True, slots=True)
class OutputChoice:
    """Options of the command `live` for its outputs, as in `LiveRequest`."""

    output: str | None = None
    retain: str | None = None
    overwrite: bool = False
    publish: Sequence[str] = ()
    split: Sequence[str] = ()
    preview: str | None = None
    metrics: str | None = None
    quiet: bool = False


class CameraOutputs:
    """Opens the outputs that were chosen, for every camera under its own name.

    names: of the cameras; "" for a single one. Raises `ConfigError` if an option is malformed.
    """

    def __init__(self, choice: OutputChoice, names: Sequence[str]) -> None:
        from maskstream.pipeline.live.live_store import parse_duration
        from maskstream.pipeline.live.publishers import parse_channel
        from maskstream.pipeline.live.splits import parse_split

        if choice.retain is not None and choice.output is None:
            raise ConfigError("--retain needs -o: the folder to keep the last results in")
        self._choice = choice
        self._names = list(names)
        self._retain_s = None if choice.retain is None else parse_duration(choice.retain)
        self._channels = [parse_channel(text) for text in choice.publish]
        if choice.split and not any(channel.kind == "mcap" for channel in self._channels):
            raise ConfigError("--split is for --publish mcap:FILE, which is missing")
        self._split = parse_split(choice.split)
        preview, metrics = choice.preview, choice.metrics
        self._preview = None if preview is None else parse_endpoint(preview, "--preview")
        self._metrics = None if metrics is None else parse_endpoint(metrics, "--metrics")

    def store_path(self, name: str) -> str | None:
        """Where the mask store of a camera is written, if it is."""
        output = self._choice.output
        return None if output is None else own_path(output, name)

    def publishers(self, cameras: LiveCameras, name: str, info: SourceInfo) -> Sequence[Sink]:
        """Open the channels of a camera. Raises `ConfigError`, `MissingExtraError`."""
        from maskstream.pipeline.live.publishers import ChannelOptions, open_channels

        session = cameras.sessions[name]
        headers = session.headers
        if name:  # each camera has a coordinate frame of its own
            headers = replace(headers, frame_id=f"{name}_{headers.frame_id}")
        options = ChannelOptions(name, self._names.index(name), self._split, headers)
        opened = open_channels(self._channels, session.commands.put, options)
        return session.outputs.guard(self._choice.publish, opened)

    def behind(self, cameras: LiveCameras, name: str, info: SourceInfo) -> Sequence[Sink]:
        """Open the store and the preview of a camera. Raises `ConfigError`, `StoreError`."""
        session = cameras.sessions[name]
        sinks: list[Sink] = []
        path = self.store_path(name)
        if path is not None:
            sinks.extend(session.outputs.guard([path], [self._store(session, info, path)]))
        if self._preview is not None:
            sinks.append(self._page(session, info, self._names.index(name)))
        return sinks

    def serve_metrics(self, cameras: LiveCameras, stack: ExitStack) -> None:
        """Serve the metrics of all cameras until the stack is closed. Raises `ConfigError`."""
        if self._metrics is None:
            return
        from maskstream.pipeline.live.metrics import MetricsServer

        server = MetricsServer(self._metrics, cameras.status)
        stack.callback(server.close)
        if not self._choice.quiet:
            typer.echo(server.url, err=True)

    def _store(self, session: LiveSession, info: SourceInfo, path: str) -> Sink:
        from maskstream.pipeline.live.live_store import (
            LiveStore,
            RollingStore,
            prepare_folder,
            writer_opener,
        )

        overwrite = self._choice.overwrite
        open_writer = writer_opener(session.pipeline, info, overwrite=overwrite)
        if self._retain_s is None:
            return LiveStore(open_writer(path))
        if is_url(path):
            raise ConfigError("--retain needs a local folder for its output, not a URL")
        prepare_folder(Path(path), overwrite=overwrite)
        return RollingStore(Path(path), self._retain_s, open_writer)

    def _page(self, session: LiveSession, info: SourceInfo, number: int) -> Sink:
        from maskstream.pipeline.access import new_key
        from maskstream.pipeline.live.preview import PreviewServer

        def status() -> dict[str, object]:
            return session.status().to_json() | {"size": list(info.size_hw)}

        assert self._preview is not None  # noqa: S101 - the caller has checked it
        endpoint = self._preview.beside(number)
        key = None if endpoint.is_local else new_key()
        server = PreviewServer(endpoint, status, session.commands.put, key)
        typer.echo(server.url, err=True)
        return server
