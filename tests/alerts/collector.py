"""An OpenTelemetry collector on loopback: takes OTLP by HTTP and keeps the metrics, named as Prometheus names them."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, NumberDataPoint

_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


class Heard(NamedTuple):
    """The last value of a metric.

    :param kind: ``counter`` (a monotonic sum of what was added since the last one) or ``gauge``.
    """

    kind: str
    value: float


class Collector:
    """Takes ``POST /v1/metrics`` on a free port."""

    def __init__(self) -> None:
        self.heard: dict[str, Heard] = {}
        """By the name that Prometheus gives it: dots are underscores, a counter ends in ``_total``."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                found = self.path == "/v1/metrics"
                if found:
                    collector._take(ExportMetricsServiceRequest.FromString(body))
                answer = ExportMetricsServiceResponse().SerializeToString()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]

    def _take(self, request: ExportMetricsServiceRequest) -> None:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if (heard := _heard(metric)) is not None:
                        name = metric.name.replace(".", "_")
                        self.heard[f"{name}_total" if heard.kind == "counter" else name] = heard

    @contextlib.contextmanager
    def running(self) -> Iterator[Collector]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _heard(metric: Metric) -> Heard | None:
    if metric.HasField("gauge"):
        return Heard("gauge", _value(metric.gauge.data_points[-1]))
    if metric.HasField("sum") and metric.sum.is_monotonic and metric.sum.aggregation_temporality == _DELTA:
        return Heard("counter", _value(metric.sum.data_points[-1]))
    return None


def _value(point: NumberDataPoint) -> float:
    return point.as_double if point.HasField("as_double") else float(point.as_int)
