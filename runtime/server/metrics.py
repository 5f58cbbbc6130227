"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_OF_MODEL = ("model", "version")


class Metrics:
    """Of one service. Labels are names of models that are served, never what a client sends."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dibr_requests", "Inference requests that were answered", (*_OF_MODEL, "protocol"), registry=self.registry
        )
        self.failures = Counter(
            "dibr_request_failures",
            "Inference requests that were refused or failed",
            (*_OF_MODEL, "protocol", "reason"),
            registry=self.registry,
        )
        self.turned_away = Counter(
            "dibr_turned_away",
            "Requests that were refused before their path was looked at",
            ("protocol", "reason"),
            registry=self.registry,
        )
        self.queue_seconds = Histogram(
            "dibr_queue_seconds", "From acceptance to the start of the run", _OF_MODEL, buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.compute_seconds = Histogram(
            "dibr_compute_seconds", "Of one run of the model, whatever its batch", _OF_MODEL, buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.batch_size = Histogram(
            "dibr_batch_size", "Images of one run of the model", _OF_MODEL, buckets=_SIZES, registry=self.registry
        )
        self.waiting = Gauge("dibr_requests_waiting", "Requests in the queue", _OF_MODEL, registry=self.registry)
        self.ready = Gauge("dibr_ready", "1 while the service takes requests", registry=self.registry)

    def text(self) -> bytes:
        """In the exposition format of ``CONTENT_TYPE``."""
        return generate_latest(self.registry)
