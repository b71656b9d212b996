"""Kill, restart, kill: until as many kills as wanted have landed in work that was not done.

Fail points are taken in turn, the least killed first, so that each has had its kills when the run is long enough;
between them kills come at random moments. After most kills what had not been synced is taken away (a power loss).
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from penstock.errors import RunError
from penstock.storage import unsynced
from penstock.verify.crash.group import Group

AT_RANDOM = "(a random moment)"
PRODUCER_POINTS = (
    "log.append",
    "log.torn",
    "log.appended",
    "log.sync",
    "log.synced",
    "log.cut",
    "log.roll",
    "log.drop",
)
RANDOM_SHARE = 0.15
PRODUCER_SHARE = 0.15
POWER_LOSS_SHARE = 0.6
MIN_HITS = 3


class Scenario(Protocol):
    """What is crashed: its programs, what happens meanwhile, and what must hold at the end."""

    folder: Path

    @property
    def patience_s(self) -> float:
        """How long a program that was started may take to come to a fail point: some epochs."""
        ...

    @property
    def points(self) -> Sequence[str]:
        """The fail points of the job."""
        ...

    @property
    def producer_points(self) -> Sequence[str]:
        """The fail points of the producer."""
        ...

    def job(self, *options: str) -> list[str]:
        """The command of the job."""
        ...

    def producer(self, round: int) -> list[str]:
        """The command of the producer; round counts its starts."""
        ...

    def meanwhile(self, generator: random.Random) -> None:
        """What else happens while the job runs (references change, dead letters are replayed)."""
        ...

    def settle(self, run_once: Callable[[], None]) -> None:
        """After the producers have stopped: drain, until nothing is left to do."""
        ...

    def check(self) -> Checked:
        """Compare what the sinks hold with a recount from the sources."""
        ...


@dataclass(frozen=True)
class Checked:
    """What the recount showed; no problems: nothing lost, nothing doubled. counts: what was compared."""

    problems: tuple[str, ...]
    counts: dict[str, int]


@dataclass
class Crashed:
    """What a crash run did. kills: point -> kills there; hits: point -> times passed; void: kills after the work."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    producer_kills: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    power_losses: int = 0
    undone: Counter[str] = field(default_factory=Counter)
    void: int = 0
    seconds: float = 0.0
    checked: Checked = field(default_factory=lambda: Checked(("not checked",), {}))
    unhit: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.kills.values()) + sum(self.producer_kills.values())

    @property
    def problems(self) -> list[str]:
        found = list(self.checked.problems)
        found += [f"fail point {point} was passed fewer than {MIN_HITS} times" for point in self.unhit]
        found += [f"{self.void} kills landed after the work was done"] if self.void else []
        return found


def crash(
    scenario: Scenario,
    *,
    kills: int,
    seed: int,
    for_s: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Crashed:
    """Run the scenario under `kills` kills (or as many as fit into `for_s`), then let it finish and check it.

    Raises:
        RunError: a process ended by itself, or could not go on after a kill.
    """
    return _Harness(scenario, seed, tell).run(kills, for_s)


class _Harness:
    def __init__(self, scenario: Scenario, seed: int, tell: Callable[[str], None]) -> None:
        self._scenario = scenario
        self._random = random.Random(seed)
        self._tell = tell
        self._result = Crashed(seed)
        self._round = 0
        self._load: Group | None = None
        self._job: Group | None = None
        # There is a torn tail to cut only after a kill in the middle of a frame: a short run would pass it too rarely.
        self._first = ["log.cut"] * MIN_HITS if "log.cut" in scenario.points else []
        self._hits = scenario.folder / "hits"
        self._records = scenario.folder / "unsynced"

    def run(self, kills: int, for_s: float | None) -> Crashed:
        began = time.monotonic()
        try:
            while self._result.total < kills and (for_s is None or time.monotonic() - began < for_s):
                self._one()
                if self._result.total % 10 == 0:
                    self._tell(f"{self._result.total} kills after {time.monotonic() - began:.0f} s")
            self._finish()
        finally:
            for group in (self._job, self._load):
                if group is not None:
                    group.kill()
        self._result.seconds = time.monotonic() - began
        return self._result

    # -- one kill ------------------------------------------------------------------------------------------------------

    def _one(self) -> None:
        if self._load is None or not self._load.running:
            self._start_load()
        if self._first:
            self._kill_job(self._first.pop())
            return
        if self._random.random() < RANDOM_SHARE:
            self._kill_job("")
            return
        job = min(self._scenario.points, key=lambda p: (self._result.kills[p], self._random.random()))
        producer = min(
            self._scenario.producer_points,
            key=lambda p: (self._result.producer_kills[p], self._random.random()),
            default="",
        )
        if producer and self._random.random() < PRODUCER_SHARE:
            self._kill_producer(producer)
        else:
            self._kill_job(job)

    def _kill_job(self, point: str) -> None:
        if point == "log.cut":
            # There is something to cut only where half of a frame was left, and survived.
            self._kill_job_at("log.torn", power_loss=False)
        self._kill_job_at(point, power_loss=self._random.random() < POWER_LOSS_SHARE)

    def _kill_job_at(self, point: str, *, power_loss: bool) -> None:
        armed = f"{point}@{1 if point == 'log.cut' else self._random.choice((1, 1, 2, 3, 5))}" if point else ""
        patience_s = self._scenario.patience_s
        group = self._job = self._group(self._scenario.job(), "job", armed)
        moment = time.monotonic() + (self._random.uniform(0.2, patience_s / 5) if not point else patience_s)
        while group.running and time.monotonic() < moment:
            self._scenario.meanwhile(self._random)
            time.sleep(0.01)
        reached = not group.running
        group.kill()
        if not group.killed:
            raise RunError("PS-RUN-001", "a kill did not end the job", expected="a killed process", got="it runs")
        if self._load is None or not self._load.running:
            self._result.void += 1
            return
        self._result.kills[point if reached and point else AT_RANDOM] += 1
        if power_loss:
            self._lose_power()

    def _kill_producer(self, point: str) -> None:
        if self._load is not None:
            self._load.stop()
        if point == "log.cut":
            self._start_load("log.torn@1")
            self._await_producer()
            self._start_load("log.cut@1")
        else:
            self._start_load(f"{point}@{self._random.choice((1, 2, 4))}")
        reached = self._await_producer()
        self._result.producer_kills[point if reached else AT_RANDOM] += 1
        if self._random.random() < POWER_LOSS_SHARE:
            self._lose_power()
        else:
            self._start_load()

    def _await_producer(self) -> bool:
        """Whether the producer was killed where it was to be."""
        assert self._load is not None
        deadline = time.monotonic() + self._scenario.patience_s
        while self._load.running and time.monotonic() < deadline:
            time.sleep(0.01)
        reached = not self._load.running
        self._load.kill()
        if not self._load.killed:
            raise RunError("PS-RUN-001", "a kill did not end the producer", got="it runs")
        return reached

    def _lose_power(self) -> None:
        """The machine goes down: every process ends, and what none of them had synced is gone."""
        if self._load is not None:
            self._load.kill()
        self._result.power_losses += 1
        for sentence in unsynced.drop_unsynced(self._records):
            self._result.undone["cut" if sentence.endswith("bytes lost") else sentence.split(" of ")[0]] += 1
        self._start_load()

    # -- programs ------------------------------------------------------------------------------------------------------

    def _start_load(self, armed: str = "") -> None:
        self._round += 1
        self._load = self._group(self._scenario.producer(self._round), "producer", armed)

    def _group(self, command: Sequence[str], name: str, armed: str) -> Group:
        folder = self._scenario.folder
        return Group(command, folder / f"{name}.log", hits=self._hits, records=self._records, armed=armed)

    def _finish(self) -> None:
        if self._load is not None:
            self._load.stop()
        self._scenario.settle(lambda: self._group(self._scenario.job("--once"), "job", "").wait())
        self._result.checked = self._scenario.check()
        self._result.hits = (
            Counter(self._hits.read_text(encoding="utf-8").split()) if self._hits.exists() else Counter()
        )
        wanted = {*self._scenario.points, *self._scenario.producer_points}
        self._result.unhit = tuple(sorted(p for p in wanted if self._result.hits[p] < MIN_HITS))
