"""Prometheus endpoint of a live run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.live.publishers.extras import need
from maskstream.pipeline.live.status import LiveStatus

_WHAT = "serving metrics"
_INSTALL = "prometheus-client: pip install 'maskstream[prometheus]'"


class MetricsServer:
    """Serves Prometheus metrics at `/metrics`, computed from `status` for every scrape.

    Raises `ConfigError` if the port is taken, `MissingExtraError`.
    """

    def __init__(
        self, port: int, status: Callable[[], LiveStatus], host: str = "127.0.0.1"
    ) -> None:
        client = need("prometheus_client", _WHAT, _INSTALL)
        registry = client.CollectorRegistry()
        registry.register(_Collector(need("prometheus_client.core", _WHAT, _INSTALL), status))
        try:
            self._server, self._thread = client.start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served at port {port}: {error.strerror}; choose another one"
            ) from error

    @property
    def url(self) -> str:
        """Address of the metrics."""
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}/metrics"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Collector:
    def __init__(self, core: Any, status: Callable[[], LiveStatus]) -> None:
        self._core = core
        self._status = status

    def collect(self) -> Iterator[Any]:
        """Yield the current metrics."""
        now = self._status()
        counter, gauge = self._core.CounterMetricFamily, self._core.GaugeMetricFamily
        for name, about, value in (
            ("frames", "Results since the start", now.frames),
            ("dropped", "Frames dropped for newer ones", now.drops),
            ("left_out", "Frames left out before decoding", now.source["left_out"]),
            ("keyframes", "Frames on which the encoder ran", now.keyframes),
            ("connections", "Connections to the source", now.source["connections"]),
            ("gaps", "Gaps of the source", now.source["gaps"]),
            ("corrupt_packets", "Packets that could not be decoded", now.source["corrupt_packets"]),
        ):
            yield counter(f"maskstream_{name}", about, value=value)
        for name, about, value in (
            ("results_per_second", "Results a second since the start", now.fps),
            ("behind_seconds", "Newest frame to newest result", now.behind_s),
            ("objects", "Visible objects", now.objects),
            ("memory_bytes", "Resident memory", now.rss_mb["end"] * 2**20),
            ("connected", "Whether the source is connected", float(now.source["connected"])),
            ("governor_level", "Steps the governor has taken", now.governor.level),
            ("failed_outputs", "Outputs that failed", len(now.failed)),
            ("hanging_stages", "Stages that exceed the watchdog's limit", len(now.hanging)),
        ):
            yield gauge(f"maskstream_{name}", about, value=value)
        latency = gauge(
            "maskstream_latency_seconds", "Capture to result, recent results", labels=["quantile"]
        )
        for percent, value in now.recent_latency_ms.items():
            latency.add_metric([f"0.{percent.removeprefix('p')}"], value / 1000)
        yield latency
