"""One run of load, job and latency calculator together, from empty topics to the verdict.

Calculator, job and producers are processes, each observed to be ready before the first event is due; producers then
follow their schedule whatever the job does. When all events are in the results (or no more come), the job is stopped
like any service; a second run of it drains what is left, so that every trial also shows that it goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from penstock.apps.ads.calculator import Calculation, Calculator, Seen, Sight
from penstock.apps.ads.fleet import Fleet
from penstock.apps.ads.job import JobPlan, JobProcess, Workplace
from penstock.apps.ads.ledger import Ledger
from penstock.apps.ads.mapping import create_ad_campaign_mappings
from penstock.apps.ads.producer import Production
from penstock.bench.folders import emptied
from penstock.bench.footprint import Footprint, Sampler
from penstock.bench.latency import LatencyHistogram
from penstock.bench.report import Machine, this_machine

READY_WITHIN_S = 60.0
QUIET_S = 5.0
LOOK_S = 0.05
MARK = "penstock-trial"


@dataclass(frozen=True)
class Moment:
    """What can be seen while a trial runs. stage: `start`, `load`, `count`, `drain`, `measure` or `done`."""

    stage: str
    elapsed_s: float
    sent: int = 0
    seen: Seen = field(default_factory=Seen)


@dataclass(frozen=True)
class Outcome:
    """A trial that came to its end.

    machine: as it was before the trial. lag: intended to actual send in microseconds. ready_s: until job, calculator
    and producers were ready. load_s: how long events were sent. footprint: what the job took meanwhile.
    """

    machine: Machine
    calculation: Calculation
    lag: LatencyHistogram
    ready_s: float
    load_s: float
    footprint: Footprint = field(default_factory=Footprint)

    @property
    def ledgers(self) -> list[Ledger]:
        return self.calculation.ledgers


def ended(machine: Machine, calculation: Calculation, ready_s: float = 0.0, load_s: float = 0.0) -> Outcome:
    """The outcome of a run whose calculation is there; times that nobody took are 0."""
    lag = LatencyHistogram()
    for ledger in calculation.ledgers:
        lag.merge(LatencyHistogram.from_dict(ledger.lag_us))
    return Outcome(machine, calculation, lag, ready_s, load_s)


Watch = Callable[[Moment], None]


def clear_workplace(folder: Path) -> Workplace:
    """An empty workplace; an older one of ours is removed, any other folder is left alone.

    Raises:
        FileExistsError: the folder has something in it that is not a trial's.
    """
    emptied(folder, MARK, "trial")
    return Workplace(folder)


class Trial:
    """Runs a production against a job in a workplace.

    Args:
        production: the load; its folders are set to those of the workplace.
        plan: the job. partitions: of the topic `events`.
        retention: of the topic `results`; the calculator follows it. `events` are all counted again at the end.
        quiet_s: after the load, the job is stopped when its results are complete or have not changed for that long.
    """

    def __init__(
        self,
        place: Workplace,
        production: Production,
        plan: JobPlan,
        *,
        partitions: int,
        watermark_s: float,
        quiet_s: float = QUIET_S,
        retention: timedelta | None = None,
    ) -> None:
        self.place = place
        self.production = replace(production, topic=place.events, ledger=place.ledger)
        self.watermark_s = watermark_s
        self._plan = plan
        self._partitions = partitions
        self._quiet_s = quiet_s
        self._retention = retention
        self._began = time.monotonic()
        self._watch: Watch = lambda moment: None

    def run(self, watch: Watch = lambda moment: None) -> Outcome:
        """The whole trial.

        Raises:
            RunError: PS-BENCH-004, the job, a producer or the calculator failed.
        """
        machine = this_machine()
        self._watch, self._began = watch, time.monotonic()
        self._tell("start")
        production = self.production
        mapping = create_ad_campaign_mappings(production.campaigns, production.ads_per_campaign)
        self.place.prepare(mapping, self._partitions, self._retention)
        with Calculator(self._sight()) as calculator:
            job = self._plan.start()
            try:
                with Sampler(job.pid, self._folders()) as sampler:
                    ready_s, load_s, sent = self._load(job, calculator)
                    self._settle(job, calculator, sent)
                job.stop()
            finally:
                job.kill()
            self._drain()
            self._tell("measure", sent, calculator.poll())
            calculation = calculator.finish()
        self._tell("done", sent)
        return replace(ended(machine, calculation, ready_s, load_s), footprint=sampler.footprint)

    def _load(self, job: JobProcess, calculator: Calculator) -> tuple[float, float, int]:
        with Fleet(self.production) as fleet:
            calculator.wait_until_ready(READY_WITHIN_S)
            job.wait_until(self._plan.is_ready, READY_WITHIN_S)

            def look(fleet: Fleet) -> None:
                job.check()
                self._tell("load", fleet.sent, calculator.poll())

            ready_s, started = time.monotonic() - self._began, time.monotonic()
            ledgers = fleet.run(look)
            return ready_s, time.monotonic() - started, sum(ledger.durable for ledger in ledgers)

    def _settle(self, job: JobProcess, calculator: Calculator, sent: int) -> None:
        """Wait until the results hold all that was sent, or stop changing."""
        self._tell("count", sent, calculator.poll())
        calculator.recount()
        while not (seen := calculator.poll()).complete and seen.quiet_s < self._quiet_s:
            job.check()
            self._tell("drain", sent, seen)
            time.sleep(LOOK_S)

    def _drain(self) -> None:
        if self._plan.drain is None:
            return
        drain = JobProcess(self._plan.drain, self._plan.log, self._plan.environment)
        try:
            drain.wait()
        finally:
            drain.kill()

    def _folders(self) -> dict[str, Path]:
        place = self.place
        return {"state": place.state, "topic results": Path(place.results), "topic events": Path(place.events)}

    def _sight(self) -> Sight:
        production = self.production
        return Sight(
            self.place.events,
            self.place.results,
            self.place.ledger,
            production.window_s,
            self.watermark_s,
            production.campaigns,
            production.ads_per_campaign,
        )

    def _tell(self, stage: str, sent: int = 0, seen: Seen | None = None) -> None:
        self._watch(Moment(stage, time.monotonic() - self._began, sent, seen or Seen()))
