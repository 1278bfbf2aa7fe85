"""Prometheus endpoint of a live run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.extras import need
from maskstream.pipeline.live.endpoints import Endpoint
from maskstream.pipeline.live.status import LiveStatus

_WHAT = "serving metrics"
_INSTALL = "prometheus-client: pip install 'maskstream[prometheus]'"


class MetricsServer:
    """Serves Prometheus metrics at `/metrics`, computed from `statuses` for every scrape.

    statuses: of the cameras, by name; the metrics of each have a label `camera`, except for a
    single one, whose name is "". Raises `ConfigError` if the endpoint is taken,
    `MissingExtraError`.
    """

    def __init__(
        self, endpoint: Endpoint, statuses: Callable[[], Mapping[str, LiveStatus]]
    ) -> None:
        client = need("prometheus_client", _WHAT, _INSTALL)
        registry = client.CollectorRegistry()
        registry.register(_Collector(need("prometheus_client.core", _WHAT, _INSTALL), statuses))
        try:
            self._server, self._thread = client.start_http_server(
                endpoint.port, endpoint.host, registry
            )
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served at {endpoint}: {error.strerror}; choose another port"
            ) from error
        self._endpoint = replace(endpoint, port=self._server.server_address[1])

    @property
    def url(self) -> str:
        """Address of the metrics."""
        return f"http://{self._endpoint}/metrics"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


_COUNTERS: Sequence[tuple[str, str, Callable[[LiveStatus], float]]] = (
    ("frames", "Results since the start", lambda now: now.frames),
    ("dropped", "Frames dropped for newer ones", lambda now: now.drops),
    ("skipped", "Frames skipped before decoding", lambda now: now.source["skipped"]),
    ("keyframes", "Frames on which the encoder ran", lambda now: now.keyframes),
    ("connections", "Connections to the source", lambda now: now.source["connections"]),
    ("gaps", "Gaps of the source", lambda now: now.source["gaps"]),
    (
        "corrupt_packets",
        "Packets that could not be decoded",
        lambda now: now.source["corrupt_packets"],
    ),
)
_GAUGES: Sequence[tuple[str, str, Callable[[LiveStatus], float]]] = (
    ("results_per_second", "Results a second since the start", lambda now: now.fps),
    ("behind_seconds", "Newest frame to newest result", lambda now: now.behind_s),
    ("objects", "Visible objects", lambda now: now.objects),
    ("connected", "Whether the source is connected", lambda now: now.source["connected"]),
    ("failed_outputs", "Outputs that failed", lambda now: len(now.failed)),
    ("hanging_stages", "Stages that exceed the watchdog's limit", lambda now: len(now.hanging)),
)
_OF_PROCESS: Sequence[tuple[str, str, Callable[[LiveStatus], float]]] = (
    ("memory_bytes", "Resident memory", lambda now: now.rss_mb["end"] * 2**20),
    ("governor_level", "Steps the governor has taken", lambda now: now.governor.level),
)


class _Collector:
    def __init__(self, core: Any, statuses: Callable[[], Mapping[str, LiveStatus]]) -> None:
        self._counter, self._gauge = core.CounterMetricFamily, core.GaugeMetricFamily
        self._statuses = statuses

    def collect(self) -> Iterator[Any]:
        """Yield the current metrics."""
        now = self._statuses()
        labels = ["camera"] if any(now) else []
        for kind, metrics in ((self._counter, _COUNTERS), (self._gauge, _GAUGES)):
            for name, about, value in metrics:
                family = kind(f"maskstream_{name}", about, labels=labels)
                for camera, status in now.items():
                    family.add_metric([camera][: len(labels)], float(value(status)))
                yield family
        for name, about, value in _OF_PROCESS:
            yield self._gauge(
                f"maskstream_{name}", about, value=float(value(next(iter(now.values()))))
            )
        latency = self._gauge(
            "maskstream_latency_seconds",
            "Capture to result, recent results",
            labels=[*labels, "quantile"],
        )
        for camera, status in now.items():
            for percent, milliseconds in status.recent_latency_ms.items():
                quantile = f"0.{percent.removeprefix('p')}"
                latency.add_metric([*[camera][: len(labels)], quantile], milliseconds / 1000)
        yield latency
