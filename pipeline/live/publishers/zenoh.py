"""Publishes live results over Zenoh: a JSON message and a label image a frame.

Keys below a prefix: `PREFIX/result` (JSON), `PREFIX/labels` (16-bit PNG; frame index and times are
attached as JSON), `PREFIX/command` and `PREFIX/detections_in` (JSON, subscribed),
`PREFIX/answer`.
"""

from __future__ import annotations

import json
from typing import Any

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.exports.png import encode_png
from maskstream.pipeline.extras import need
from maskstream.pipeline.live.commands import CommandIntake, Outcome, TakeCommand
from maskstream.pipeline.live.headers import DEFAULT_HEADERS, Headers
from maskstream.pipeline.live.messages import captured_ns, of_camera, result_message
from maskstream.pipeline.types import Frame, FrameResult

_INSTALL = "eclipse-zenoh: pip install 'maskstream[zenoh]'"


class ZenohPublisher:
    """A sink that publishes below a key prefix.

    target: PREFIX, or PREFIX@FILE with a Zenoh configuration (JSON5); without one the session is a
    peer that finds others by multicast. camera: name of one of several cameras, which follows the
    prefix, or "". Raises `ConfigError`, `MissingExtraError`.
    """

    def __init__(
        self,
        target: str,
        take: TakeCommand,
        headers: Headers = DEFAULT_HEADERS,
        camera: str = "",
    ) -> None:
        zenoh = need("zenoh", "publishing over Zenoh", _INSTALL)
        self._intake = CommandIntake(take)
        self._headers = headers
        prefix, _, file = target.partition("@")
        prefix = f"{prefix}/{camera}" if camera else prefix
        self._camera = camera
        try:
            config = zenoh.Config.from_file(file) if file else zenoh.Config()
            self._session = zenoh.open(config)
            self._results = self._session.declare_publisher(f"{prefix}/result")
            self._labels = self._session.declare_publisher(f"{prefix}/labels")
            self._answers = self._session.declare_publisher(f"{prefix}/answer")
            self._session.declare_subscriber(f"{prefix}/command", self._on_message)
            self._session.declare_subscriber(f"{prefix}/detections_in", self._on_detections)
        except zenoh.ZError as error:
            raise ConfigError(f"Zenoh cannot publish at {target}: {error}") from error

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Publish the result."""
        self._results.put(json.dumps(of_camera(self._camera, result_message(frame, result))))
        about = {
            "frame": result.index,
            "stamp_ns": self._headers.stamp_ns(frame),
            "captured_ns": captured_ns(frame),
        }
        self._labels.put(encode_png(result.labels), attachment=json.dumps(about))

    def idle(self) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Close the Zenoh session."""
        self._session.close()

    def _on_message(self, sample: Any) -> None:
        self._intake.receive(sample.payload.to_bytes(), self._answer)

    def _on_detections(self, sample: Any) -> None:
        text = sample.payload.to_bytes()
        self._intake.receive(text, self._answer, usual_type="detections")

    def _answer(self, outcome: Outcome) -> None:
        self._answers.put(json.dumps(outcome.to_json()))
