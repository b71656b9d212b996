"""The metrics of a run, under the names of Prometheus, and the endpoint that serves them.

Every run has a registry of its own, so that two jobs or tests in one process do not share counts. Counters only grow;
after a restart they begin at zero again, as Prometheus expects.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread
from types import TracebackType
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from penstock.observe.ports import port_refused

HOST = "127.0.0.1"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class SourceCounts:
    """Rows of one source in one epoch: rows_in = accepted + duplicate + dead + late."""

    rows_in: int = 0
    accepted: int = 0
    duplicate: int = 0
    dead: int = 0
    late: int = 0


class Metrics:
    """Counts one run.

    Example:
        >>> metrics = Metrics("clicks")
        >>> metrics.source("clicks", SourceCounts(rows_in=3, accepted=2, dead=1))
        >>> 'penstock_rows_dead_total{pipeline="clicks",source="clicks"} 1.0' in metrics.text()
        True
    """

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"penstock_{name}", text, ("pipeline", *labels), registry=self._registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"penstock_{name}", text, ("pipeline", *labels), registry=self._registry)

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(f"penstock_{name}", text, ("pipeline",), registry=self._registry, buckets=_SECONDS)

        self._rows_in = counter("rows_in", "Rows read from a source.", "source")
        self._accepted = counter("rows_accepted", "Rows that entered the views.", "source")
        self._duplicate = counter("rows_duplicate", "Repeated rows that were left out.", "source")
        self._dead = counter("rows_dead", "Records that broke their contract.", "source")
        self._late = counter("rows_late", "Rows whose windows were closed.", "source")
        self._rows_out = counter("rows_out", "Changes handed to a sink.", "sink")
        self._again = counter("views_computed_again", "Epochs that computed a view again as a whole.", "view")
        self._errors = counter("errors", "Errors, by code.", "code")
        self._epoch = gauge("epoch", "The last committed epoch.")
        self._epoch_seconds = seconds("epoch_duration_seconds", "From reading to commit of an epoch.")
        self._commit_seconds = seconds("commit_duration_seconds", "The commit of an epoch.")
        self._throughput = gauge("throughput_rows_per_second", "Rows read per second in the last epoch.")
        self._lag = gauge("lag_rows", "Rows of a source that are not read yet.", "source")
        self._state = gauge("state_bytes", "The size of the state on disk.")
        self._watermark = gauge("watermark_seconds", "The watermark of a source, as Unix time.", "source")

    def source(self, name: str, counts: SourceCounts) -> None:
        """Add one epoch's rows of a source."""
        self._rows_in.labels(self._pipeline, name).inc(counts.rows_in)
        self._accepted.labels(self._pipeline, name).inc(counts.accepted)
        self._duplicate.labels(self._pipeline, name).inc(counts.duplicate)
        self._dead.labels(self._pipeline, name).inc(counts.dead)
        self._late.labels(self._pipeline, name).inc(counts.late)

    def sink(self, name: str, rows: int) -> None:
        """Add changes delivered to a sink."""
        self._rows_out.labels(self._pipeline, name).inc(rows)

    def epoch(self, number: int, *, rows: int, duration_s: float, commit_s: float) -> None:
        """Note a committed epoch; rows: read in it over all sources."""
        self._epoch.labels(self._pipeline).set(number)
        self._epoch_seconds.labels(self._pipeline).observe(duration_s)
        self._commit_seconds.labels(self._pipeline).observe(commit_s)
        self._throughput.labels(self._pipeline).set(rows / duration_s if duration_s > 0 else 0)

    def computed_again(self, view: str) -> None:
        """Count an epoch that computed groups of a view again instead of moving them by their changes."""
        self._again.labels(self._pipeline, view).inc()

    def lag(self, source: str, rows: int) -> None:
        """Set how many rows of a source are there and not read."""
        self._lag.labels(self._pipeline, source).set(rows)

    def watermark(self, source: str, at_us: int) -> None:
        """Set a source's watermark, in microseconds of Unix time."""
        self._watermark.labels(self._pipeline, source).set(at_us / 1e6)

    def state_size(self, size_bytes: int) -> None:
        """Set the size of the state on disk."""
        self._state.labels(self._pipeline).set(size_bytes)

    def error(self, code: str) -> None:
        """Count an error."""
        self._errors.labels(self._pipeline, code).inc()

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry).decode()

    def serve(self, port: int) -> MetricsServer:
        """Serve `/metrics` on 127.0.0.1 until the server is closed; port 0 takes a free one.

        Raises:
            RunError: PS-RUN-005, the port cannot be used.
        """
        try:
            server, thread = start_http_server(port, addr=HOST, registry=self._registry)
        except (OSError, OverflowError) as problem:
            raise port_refused("the metrics", "a free port from 0 to 65535", HOST, port, problem) from None
        return MetricsServer(server, thread)


class MetricsServer:
    """A running endpoint; close it, or use it in a `with` block."""

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port
        self.url = f"http://{HOST}:{self.port}/metrics"

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
