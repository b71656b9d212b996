"""Penstock itself, as `penstock run ads` does it: opened, drained, committed by epochs, delivered to its topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from penstock.apps.ads.job import Workplace, job_bindings, job_values
from penstock.apps.ads.results import read_results
from penstock.bench.backlog import Drain, drain
from penstock.bench.peers.harness import Row, Work
from penstock.connectors.log import LogTopic
from penstock.runtime.heap import share_heaps


class Penstock:
    """Nothing stays open between runs: each opens a fresh state."""

    def versions(self) -> Mapping[str, str]:
        found = {name: version(name) for name in ("penstock", "duckdb", "pyarrow")}
        try:
            return found | {"numba": version("numba")}
        except PackageNotFoundError:  # the extra `fast` is not installed: SQL judges
            return found

    def prepare(self, work: Work) -> None:
        LogTopic.create(_place(work).results, 1)

    def run(self, work: Work) -> None:
        place = _place(work)
        pipeline = work.options["pipeline"]
        values = job_values(work.window_s, work.watermark_s)
        drain(Drain(pipeline, tuple(job_bindings(place)), values, place.state, int(work.options["epoch_rows"])))

    def results(self, work: Work) -> Iterable[Row]:
        fold = read_results(_place(work).results, work.window_s)
        if fold.mistakes:
            raise ValueError(fold.mistakes[0])
        for (campaign, start_us), counts in fold.cells.items():
            kinds = (counts.count, counts.views, counts.clicks, counts.purchases)
            yield (campaign, start_us, *kinds, counts.max_produce_time_ms)

    def close(self) -> None:
        """There is nothing to close."""


def open_peer(work: Work) -> Penstock:
    share_heaps()
    return Penstock()


def _place(work: Work) -> Workplace:
    return Workplace(Path(work.folder), Path(work.inputs["workplace"]))
