"""What the server counts, for Prometheus; each application has a registry of its own."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of: Any = {"registry": self.registry}
        self.forward_passes = Counter(
            "patchword_forward_passes", "Times that a model's image encoder ran, on a batch of one image or more", **of
        )
        self.images = Counter("patchword_images", "Images that a model's image encoder saw", **of)
        self.requests = Counter("patchword_requests", "Requests by route and status", ["path", "code"], **of)
        self.seconds = Histogram("patchword_request_seconds", "Seconds from a request to its answer", ["path"], **of)
        self.queue_depth = Gauge("patchword_queue_depth", "Requests that wait for the models or are in them", **of)
        self.rejected = Counter("patchword_rejected", "Requests that were refused", ["reason"], **of)
        self.remembered = Gauge("patchword_remembered_images", "Uploaded images that are remembered", **of)

    def page(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
