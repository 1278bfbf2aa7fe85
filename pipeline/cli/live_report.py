"""What the command `live` prints of its cameras: status lines and summaries."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from maskstream.pipeline.live.status import LiveStatus

_WIDTH = 150


class StatusLines:
    """Prints the status of cameras, by name ("" for a single one); thread-safe."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._as_json, self._quiet = as_json, quiet
        self._lock = threading.Lock()
        self._newest: dict[str, LiveStatus] = {}

    def status(self, name: str, status: LiveStatus) -> None:
        """Print the current status of a camera; for persons those of all in one line."""
        with self._lock:
            if self._as_json:
                typer.echo(_json_line(name, status, "status"))
                return
            self._newest[name] = status
            if not self._quiet:
                typer.echo(f"\r{self._line()}", nl=False, err=True)

    def failure(self, name: str, error: Exception) -> None:
        """Print why one of several cameras has failed."""
        with self._lock:
            if self._as_json:
                line = {"type": "failure", "camera": name, "error": str(error)}
                typer.echo(json.dumps(line))
            typer.echo(f"error: {name}: {error}", err=True)

    def summary(self, name: str, status: LiveStatus) -> None:
        """Print the summary of a camera that has ended."""
        if self._as_json:
            typer.echo(_json_line(name, status, "summary"))
        elif not self._quiet:
            title = f"{name}: " if name else ""
            typer.echo(f"\n{title}{_line(status)}", err=True)

    def _line(self) -> str:
        if "" in self._newest:
            return _line(self._newest[""])
        parts = [_short(name, status) for name, status in sorted(self._newest.items())]
        governor = next(iter(self._newest.values())).governor
        parts.append(f"governor {governor.level}/{governor.levels} ({governor.reason})")
        return f"{' | '.join(parts):<{_WIDTH}}"


def _json_line(name: str, status: LiveStatus, kind: str) -> str:
    values = status.to_json(kind)
    return json.dumps({"type": kind, "camera": name} | values if name else values)


def _short(name: str, status: LiveStatus) -> str:
    """Status of one of several cameras."""
    line = f"{name} {status.recent_fps:.1f} fps, {status.objects} objects"
    return f"{line}, p95 {status.recent_latency_ms['p95']} ms{_troubles(status)}"


def _line(status: LiveStatus) -> str:
    recent, governor = status.recent_latency_ms, status.governor
    line = (
        f"{status.frames} frames, {status.fps:.1f} fps, {status.drops} dropped, "
        f"{status.objects} objects, latency p50 {recent['p50']} p95 {recent['p95']} ms, governor "
        f"{governor.level}/{governor.levels} ({governor.reason}){_troubles(status)}"
    )
    return f"{line:<{_WIDTH}}"


def _troubles(status: LiveStatus) -> str:
    skipped = status.source["skipped"]
    line = f", {skipped} skipped before decoding" if skipped else ""
    if status.full:
        line += ", no more objects: all ids are used"
    if status.source["recording"] == "encoded":
        line += ", recording is encoded without loss"
    if status.failed:
        line += f", failed: {', '.join(status.failed)}"
    if not status.source["connected"] and status.source["trouble"]:
        line += f", disconnected: {status.source['trouble']}"
    return line
