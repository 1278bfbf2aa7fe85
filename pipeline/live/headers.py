"""Headers of published messages: the stamp of a frame, its coordinate frame, its camera."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maskstream.pipeline.config import LiveConfig
from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.camera_info import CameraInfo, load_camera_info
from maskstream.pipeline.live.messages import captured_ns
from maskstream.pipeline.types import Frame

Stamps = Literal["capture", "stream", "ntp"]
_STATE_NTP = ("rtsp:", "rtsps:", "rtp:", "sdp:")


@dataclass(frozen=True, slots=True)
class Headers:
    """What the headers of messages about a frame say.

    stamps: which time. "capture": the wall clock at capture, as the program that gave the frame
    states it, else the frame's arrival by this machine's clock. "stream": the source's timestamp,
    or "capture" if it has none. "ntp": the wall clock at capture by the sender's clock, or
    "capture" until the sender has stated it.
    frame_id: name of the camera's coordinate frame. camera: its calibration.
    """

    stamps: Stamps = "capture"
    frame_id: str = "camera"
    camera: CameraInfo | None = None

    @classmethod
    def of(cls, config: LiveConfig) -> Headers:
        """As configured. Raises `ConfigError` if the calibration cannot be read."""
        camera = load_camera_info(Path(config.camera_info)) if config.camera_info else None
        return cls(config.stamps, config.frame_id, camera)

    def stamp_ns(self, frame: Frame) -> int:
        """The stamp of a frame, nanoseconds."""
        return stamp_ns(frame, self.stamps)


def stamp_ns(frame: Frame, stamps: Stamps) -> int:
    """The stamp of a frame, nanoseconds, as in `Headers`; never the time of sending."""
    if stamps == "stream" and frame.pts is not None:
        return max(0, int(frame.pts * frame.time_base * 1_000_000_000))
    arrival = frame.arrival
    if stamps == "ntp" and arrival is not None and arrival.ntp_s is not None:
        return 1000 * round(arrival.ntp_s * 1e6)
    if arrival is not None and arrival.given_ns is not None:
        return max(0, arrival.given_ns)
    return captured_ns(frame)


DEFAULT_HEADERS = Headers()
"""Stamps of capture, of a camera without a calibration."""


def check_stamps(stamps: Stamps, target: object) -> None:
    """Raise `ConfigError` if a live input cannot state the time of capture that is asked for."""
    if stamps == "ntp" and not str(target).lower().startswith(_STATE_NTP):
        raise ConfigError(
            "--stamps ntp is for RTSP, whose senders may state the time of capture; "
            "leave it out: the time of arrival is taken"
        )
