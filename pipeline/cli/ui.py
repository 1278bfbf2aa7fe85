"""Command `ui`: serve the browser page. The only command that imports `maskstream.ui`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskstream.pipeline.cli.detector_options import DetectorOptions
from maskstream.pipeline.cli.model_options import ModelOptions
from maskstream.pipeline.cli.options import (
    ClassesOption,
    ConfigOption,
    DeviceOption,
    EngineOption,
    LabelsOption,
    ModelOption,
    OverridesOption,
    TextOption,
)

if TYPE_CHECKING:
    from maskstream.ui.server.app import ServerChoice

_SESSIONS = Path("~/.cache/maskstream/sessions")


def register(app: typer.Typer) -> None:
    """Register the command."""
    app.command("ui")(ui)


def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: all interfaces.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port; default: the first free one from 7860 on."),
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Also create a public link.")] = False,
    sessions: Annotated[Path, typer.Option(help="Folder of the sessions.")] = _SESSIONS,
    allow: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder whose videos may be opened by path; by default the working directory, "
            "and none where others can reach the page."
        ),
    ] = None,
    upload_mb: Annotated[int, typer.Option(min=1, help="Largest upload, MB.")] = 4096,
    session_gb: Annotated[
        float | None,
        typer.Option(min=0.1, help="Disk space of a session, GB; default: 10 where others reach."),
    ] = None,
    total_gb: Annotated[
        float | None,
        typer.Option(min=0.1, help="Disk space of all sessions, GB; default: 100 where others do."),
    ] = None,
    max_sessions: Annotated[
        int | None,
        typer.Option(min=1, help="Sessions kept at a time; default: 200 where others do."),
    ] = None,
    age_h: Annotated[float, typer.Option(min=0.1, help="Hours to keep unused sessions.")] = 72.0,
    jobs: Annotated[
        int, typer.Option(min=1, help="Tracking jobs at a time, and as many exports.")
    ] = 1,
    queue: Annotated[int, typer.Option(min=0, help="Jobs that may wait, of each kind.")] = 16,
    propose: Annotated[
        bool, typer.Option("--propose/--no-propose", help="Find objects when a video is opened.")
    ] = True,
    hostname: Annotated[
        list[str] | None, typer.Option(help="Host name under which the page is reached, if any.")
    ] = None,
    embed: Annotated[
        bool, typer.Option("--embed", help="Other sites may show the page in a frame.")
    ] = False,
    private_urls: Annotated[
        bool, typer.Option("--private-urls", help="Fetch videos from private addresses, too.")
    ] = False,
    config: ConfigOption = None,
    overrides: OverridesOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    offer: Annotated[
        list[str] | None,
        typer.Option(help="Another model that a session may choose; may be given several times."),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(help="Detector that Find asks, an ONNX or OpenVINO graph (YOLO, DETR, SSD)."),
    ] = None,
    text: TextOption = None,
    classes: ClassesOption = None,
    labels: LabelsOption = None,
) -> None:
    """Open the page: click objects, track and correct them, export.

    A published model or a checkpoint is quantized on first use, on the demo clip; if your videos
    look different, `run` it on one of them first.
    """
    from maskstream.ui.server.app import ServerChoice

    choice = ServerChoice(
        folder=sessions.expanduser(),
        host=host,
        port=port,
        share=share,
        allow=allow or None,
        upload_mb=upload_mb,
        session_gb=session_gb,
        total_gb=total_gb,
        max_sessions=max_sessions,
        age_h=age_h,
        jobs=jobs,
        queue=queue,
        propose=propose,
        hostnames=hostname or (),
        embed=embed,
        private_urls=private_urls,
    )
    detecting = DetectorOptions(detector, None, text, classes, labels)
    chosen = ModelOptions(model, device, engine)
    settings = [*(overrides or []), *chosen.settings, *detecting.settings]
    _serve(choice, config, settings, offer or ())


def _serve(
    choice: ServerChoice, config: Path | None, settings: Sequence[str], offer: Sequence[str]
) -> None:
    """Serve the page until Ctrl-C, and print its address."""
    from maskstream.pipeline.cli.first_use import with_model_folder
    from maskstream.pipeline.config import load_config
    from maskstream.pipeline.models.open import locate_model
    from maskstream.ui.server.app import serve

    configured = load_config(config, settings)
    offered = {
        Path(name).name: with_model_folder(configured.model_copy(update={"model": name}))
        for name in offer
    }
    configured = with_model_folder(configured)
    for each in (configured, *offered.values()):
        locate_model(each)  # what cannot be opened is said now, not at the first click
    served = serve(choice, configured, offered)
    address = served.login_url(served.url)
    typer.echo(f"The page is at {address} (Ctrl-C stops it; sessions are kept).")
    if served.key is not None:
        typer.echo(
            "Others can reach this page: only who has this link can use it. The connection is not "
            "encrypted; put a reverse proxy with HTTPS before it outside a trusted network.",
            err=True,
        )
    if choice.share:
        typer.echo(
            f"Anybody who has this link can reach it: {served.login_url(served.share_url)}"
            if served.share_url
            else "No public link could be created: Gradio's tunnel cannot be reached. "
            "The page is served on this machine only.",
            err=served.share_url is None,
        )
    try:
        served.wait()
    finally:
        served.close()
