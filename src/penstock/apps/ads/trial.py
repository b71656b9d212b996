"""One run of load and job together, from empty topics to the verdict.

The job is started first and observed to be ready; producers then follow their schedule whatever the job does. At the
end the job is stopped like any service, and a second run of it drains what is left, so that every trial also shows
that the job goes on where it was.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.apps.ads.counts import total
from penstock.apps.ads.fleet import Fleet
from penstock.apps.ads.job import JobProcess, Workplace, job_command
from penstock.apps.ads.ledger import Ledger
from penstock.apps.ads.mapping import create_ad_campaign_mappings
from penstock.apps.ads.producer import Production
from penstock.apps.ads.recount import Recount, recount
from penstock.apps.ads.results import Fold, ResultsReader, read_results
from penstock.apps.ads.verdict import Verdict, compare
from penstock.bench.latency import LatencyHistogram

READY_WITHIN_S = 60.0
MARK = "penstock-trial"


@dataclass(frozen=True)
class Moment:
    """What can be seen while a trial runs. stage: `start`, `load`, `drain`, `check` or `done`."""

    stage: str
    elapsed_s: float
    sent: int = 0
    counted: int = 0
    windows: int = 0
    epoch: int = -1


@dataclass(frozen=True)
class Outcome:
    """A trial that came to its end."""

    ledgers: list[Ledger]
    counted: Recount
    results: Fold
    verdict: Verdict
    lag: LatencyHistogram
    load_s: float


Watch = Callable[[Moment], None]


def clear_workplace(folder: Path) -> Workplace:
    """An empty workplace; an older one of ours is removed, any other folder is left alone.

    Raises:
        FileExistsError: the folder has something in it that is not a trial's.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise FileExistsError(f"{folder} is not empty, and not of an earlier trial")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    return Workplace(folder)


class Trial:
    """Runs a production against the job in a workplace.

    Args:
        production: the load; its folders are set to those of the workplace.
        partitions: of the topic `events`.
    """

    def __init__(
        self, place: Workplace, production: Production, *, partitions: int, watermark_s: float, pipeline: str = "ads"
    ) -> None:
        self.place = place
        self.production = replace(production, topic=place.events, ledger=place.ledger)
        self.watermark_s = watermark_s
        self._partitions = partitions
        self._pipeline = pipeline
        self._mapping = create_ad_campaign_mappings(production.campaigns, production.ads_per_campaign)
        self._began = time.monotonic()

    def run(self, watch: Watch = lambda moment: None) -> Outcome:
        """The whole trial.

        Raises:
            RunError: PS-BENCH-004, the job or a producer failed.
        """
        self._began = time.monotonic()
        watch(self._moment("start"))
        self.place.prepare(self._mapping, self._partitions)
        job = JobProcess(self._command(), self.place.job_log)
        try:
            ledgers, load_s = self._load(job, watch)
            watch(self._moment("drain", sum(ledger.durable for ledger in ledgers)))
            job.stop()
        finally:
            job.kill()
        drain = JobProcess(self._command("--once"), self.place.job_log)
        try:
            drain.wait()
        finally:
            drain.kill()
        return self._check(ledgers, load_s, watch)

    def _load(self, job: JobProcess, watch: Watch) -> tuple[list[Ledger], float]:
        reader = ResultsReader(self.place.results, self.production.window_s)
        try:
            with Fleet(self.production) as fleet:
                job.wait_until(self.place.job_is_ready, READY_WITHIN_S)

                def look(fleet: Fleet) -> None:
                    job.check()
                    watch(self._moment("load", fleet.sent, reader.poll()))

                started = time.monotonic()
                ledgers = fleet.run(look)
                return ledgers, time.monotonic() - started
        finally:
            reader.close()

    def _check(self, ledgers: list[Ledger], load_s: float, watch: Watch) -> Outcome:
        results = read_results(self.place.results, self.production.window_s)
        sent = sum(ledger.durable for ledger in ledgers)
        watch(self._moment("check", sent, results))
        counted = recount(
            self.place.events, self._mapping, window_s=self.production.window_s, watermark_s=self.watermark_s
        )
        lag = LatencyHistogram()
        for ledger in ledgers:
            lag.merge(LatencyHistogram.from_dict(ledger.lag_us))
        watch(self._moment("done", sent, results))
        return Outcome(ledgers, counted, results, compare(ledgers, counted, results), lag, load_s)

    def _command(self, *options: str) -> list[str]:
        return job_command(
            self.place,
            window_s=self.production.window_s,
            watermark_s=self.watermark_s,
            pipeline=self._pipeline,
            options=options,
        )

    def _moment(self, stage: str, sent: int = 0, results: Fold | None = None) -> Moment:
        elapsed_s = time.monotonic() - self._began
        if results is None:
            return Moment(stage, elapsed_s, sent)
        return Moment(stage, elapsed_s, sent, total(results.cells).count, len(results.cells), results.epoch)
