"""The metrics of the service, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one service.

    Args:
        pending: Returns the number of images that wait or run.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, pending: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "pixelwise_requests",
            "Answered requests.",
            ["method", "path", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "pixelwise_request_seconds",
            "Time from the request to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.images = Counter(
            "pixelwise_images", "Predicted images.", ["model"], registry=self._registry
        )
        self.prediction = Histogram(
            "pixelwise_prediction_seconds",
            "Time to decode, predict and encode an image.",
            ["model"],
            buckets=SECONDS,
            registry=self._registry,
        )
        gauge = Gauge("pixelwise_pending", "Images that wait or run.", registry=self._registry)
        gauge.set_function(lambda: float(pending()))

    def expose(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)
