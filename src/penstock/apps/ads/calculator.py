"""The latency calculator: follows the results while they come, and measures when all is there.

It is a process of its own, so that reading results never holds up producers or what shows the progress. It sees only
the topics and the producers' files, never the job. Its answer is final only when it was asked for after the job's end.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Literal, Self

from penstock.apps.ads.counts import differences, total
from penstock.apps.ads.ledger import Ledger, read_ledgers
from penstock.apps.ads.mapping import create_ad_campaign_mappings
from penstock.apps.ads.measure import Measured, measure
from penstock.apps.ads.priority import step_back, step_in
from penstock.apps.ads.recount import Recount, recount_in_time
from penstock.apps.ads.results import Fold, ResultsReader
from penstock.apps.ads.timeline import Timeline, scheduled
from penstock.apps.ads.verdict import Verdict, compare
from penstock.errors import Error, RunError

FOLLOW_S = 0.05
REPORT_S = 0.2
ANSWER_WITHIN_S = 3_600.0


@dataclass(frozen=True)
class Sight:
    """Where to look: topics and ledgers (folders), and the numbers that producers and job were given."""

    events: str
    results: str
    ledger: str
    window_s: float
    watermark_s: float
    campaigns: int
    ads_per_campaign: int


@dataclass(frozen=True)
class Seen:
    """What the results say so far. counted: events in them; quiet_s: how long nothing new has come.

    complete: they agree with the recount, once it was made.
    """

    counted: int = 0
    windows: int = 0
    epoch: int = -1
    records: int = 0
    quiet_s: float = 0.0
    complete: bool = False


@dataclass(frozen=True)
class Calculation:
    """Everything about a run that has ended. results: without their history."""

    ledgers: list[Ledger]
    counted: Recount
    results: Fold
    verdict: Verdict
    measured: Measured


Command = Literal["recount", "finish"]
Message = Seen | Calculation | str


def calculate(sight: Sight) -> Calculation:
    """Counts and latencies of a run that has ended, in this process."""
    reader = ResultsReader(sight.results, sight.window_s)
    try:
        return _calculation(sight, _expected(sight), reader.poll())
    finally:
        reader.close()


class Calculator:
    """The calculator as a process. Use it as a context: leaving it ends the process.

    Raises:
        RunError: PS-BENCH-004 from any method, when the process fails.
    """

    def __init__(self, sight: Sight) -> None:
        context = get_context("spawn")
        self.seen = Seen()
        self._link, there = context.Pipe()
        self._process = context.Process(target=_main, args=(sight, there))
        self._process.start()
        there.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._link.close()
        if exception[0] is not None:
            self._process.terminate()
        self._process.join()

    def wait_until_ready(self, within_s: float) -> None:
        """Return when the process follows the results."""
        self._wait_for("ready", within_s)

    def poll(self) -> Seen:
        """What has been seen by now."""
        while self._link.poll():
            self._take(self._receive("progress", 0.0))
        return self.seen

    def recount(self) -> None:
        """Count the topic again, for which the producers must have ended; `Seen.complete` is known from then on."""
        self._link.send("recount")
        self._wait_for("recounted", ANSWER_WITHIN_S)

    def finish(self) -> Calculation:
        """The answer, for which the job must have ended."""
        self._link.send("finish")
        while True:
            message = self._receive("finished", ANSWER_WITHIN_S)
            if isinstance(message, Calculation):
                return message
            self._take(message)

    def _wait_for(self, word: str, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while (message := self._receive(word, deadline - time.monotonic())) != word:
            self._take(message)

    def _receive(self, wanted: str, within_s: float) -> Message:
        try:
            if self._link.poll(max(0.0, within_s)):
                message: Message = self._link.recv()
                return message
        except (EOFError, OSError):
            raise _failed("it ended by itself") from None
        raise _failed(f"no answer ({wanted})")

    def _take(self, message: Message) -> None:
        match message:
            case Seen():
                self.seen = message
            case str():
                raise _failed(message)
            case Calculation():
                raise _failed("an answer before it was asked")


def _main(sight: Sight, link: Connection) -> None:
    # Ctrl-C reaches the whole terminal group; the parent decides when the calculator ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    step_back()
    try:
        _follow(sight, link)
    except (ConnectionError, EOFError):
        return
    except (Error, OSError) as error:
        link.send(str(error))


def _end(number: int, frame: FrameType | None) -> None:
    """End, and the processes that count for this one with it: they would wait for work for ever."""
    for child in active_children():
        child.kill()
    raise SystemExit(128 + number)


def _follow(sight: Sight, link: Connection) -> None:
    reader = ResultsReader(sight.results, sight.window_s)
    expected: tuple[Recount, list[Timeline]] | None = None
    link.send("ready")
    told_at = changed_at = time.monotonic()
    records = 0
    try:
        while True:
            command: Command | None = link.recv() if link.poll(FOLLOW_S) else None
            fold, now = reader.poll(), time.monotonic()
            if fold.records != records:
                records, changed_at = fold.records, now
            match command:
                case "recount":
                    step_in()
                    expected = _expected(sight)
                    link.send("recounted")
                    changed_at = time.monotonic()
                case "finish":
                    step_in()
                    link.send(_calculation(sight, expected or _expected(sight), reader.poll()))
                    return
                case None:
                    if now - told_at >= REPORT_S:
                        told_at = now
                        link.send(_seen(fold, now - changed_at, expected))
    finally:
        reader.close()


def _seen(fold: Fold, quiet_s: float, expected: tuple[Recount, list[Timeline]] | None) -> Seen:
    complete = expected is not None and not differences(expected[0].accepted, fold.cells)
    return Seen(total(fold.cells).count, len(fold.cells), fold.epoch, fold.records, quiet_s, complete)


def _expected(sight: Sight) -> tuple[Recount, list[Timeline]]:
    mapping = create_ad_campaign_mappings(sight.campaigns, sight.ads_per_campaign)
    counted, timelines = recount_in_time(sight.events, mapping, window_s=sight.window_s, watermark_s=sight.watermark_s)
    return counted, scheduled(timelines, Path(sight.ledger))


def _calculation(sight: Sight, expected: tuple[Recount, list[Timeline]], fold: Fold) -> Calculation:
    counted, timelines = expected
    ledgers = read_ledgers(Path(sight.ledger))
    measured = measure(timelines, fold.history, round(sight.window_s * 1e6))
    verdict = compare(ledgers, counted, fold, measured.impossible)
    return Calculation(ledgers, counted, fold.without_history(), verdict, measured)


def _failed(message: str) -> RunError:
    return RunError("PS-BENCH-004", "the latency calculator failed", expected="a process that answers", got=message)
