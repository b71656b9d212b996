"""`penstock run --metrics-port`: what a run's epochs add to its metrics. Imported for that option alone."""

from __future__ import annotations

from pathlib import Path

from penstock.engines.base import Counts, EpochResult
from penstock.errors import Error
from penstock.observe.metrics import Metrics, SourceCounts
from penstock.runtime.runner import Runner


class MetricsObserver:
    """Feeds the Prometheus metrics of a run and serves them on 127.0.0.1."""

    def __init__(self, pipeline: str, port: int) -> None:
        self._metrics = Metrics(pipeline)
        self._server = self._metrics.serve(port)
        self.port = self._server.port
        self._before: dict[str, Counts] = {}
        self._late: dict[str, int] = {}
        self._delivered: dict[str, int] = {}

    def started(self, runner: Runner) -> None:
        self._before = {name: _copy(s.counts) for name, s in runner.progress.sources.items()}

    def epoch(self, runner: Runner, result: EpochResult) -> None:
        metrics = self._metrics
        metrics.epoch(result.epoch, rows=result.rows_in, duration_s=result.seconds, commit_s=result.commit_seconds)
        for view in result.again:
            metrics.computed_again(view)
        for name, stood in runner.progress.sources.items():
            before = self._before.get(name, Counts())
            late = sum(n for view, n in result.late.items() if name in _streams(runner, view))
            metrics.source(
                name,
                SourceCounts(
                    max(0, stood.counts.rows - before.rows),
                    max(0, stood.counts.accepted - before.accepted),
                    max(0, stood.counts.duplicate - before.duplicate),
                    max(0, stood.counts.dead - before.dead),
                    late,
                ),
            )
            self._before[name] = _copy(stood.counts)
            if stood.watermark_us is not None:
                metrics.watermark(name, stood.watermark_us)
        for feed in runner.feeds:
            metrics.lag(feed.declared.name, feed.lag)
        for name, delivery in runner.deliveries.items():
            metrics.sink(name, delivery.rows - self._delivered.get(name, 0))
            self._delivered[name] = delivery.rows
        metrics.state_size(_size(runner.target.state))

    def alert(self, runner: Runner, message: str) -> None:
        self._metrics.error("alert")

    def stopped(self, runner: Runner, error: BaseException | None) -> None:
        if isinstance(error, Error):
            self._metrics.error(error.code)
        self._server.close()


def _copy(counts: Counts) -> Counts:
    return Counts(**vars(counts))


def _streams(runner: Runner, view: str) -> tuple[str, ...]:
    found = runner.plan.view(view)
    return runner.plan.node(found.node).relation.streams if found else ()


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.glob("state.duckdb*") if f.exists())
