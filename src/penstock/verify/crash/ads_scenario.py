"""The ads job under crashes: its own producers, and the count that recounts every record in plain Python."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

from penstock.apps.ads.job import Workplace, job_command
from penstock.apps.ads.ledger import read_ledgers
from penstock.apps.ads.mapping import create_ad_campaign_mappings
from penstock.apps.ads.recount import recount
from penstock.apps.ads.results import read_results
from penstock.apps.ads.verdict import compare
from penstock.verify.crash.harness import Checked

WINDOW_S = 2.0
WATERMARK_S = 1.0
JOB_POINTS = (
    *("redo.torn", "redo.sync", "settle.before_commit", "settle.after_commit"),
    *("epoch.before_commit", "epoch.after_commit", "mark.before", "mark.after", "sink.before", "sink.after"),
    *("log.deliver", "log.delivered_part", "log.delivered"),
    *("log.append", "log.torn", "log.appended", "log.sync", "log.synced", "log.cut"),
)


class Ads:
    """The scenario `ads` in an empty folder."""

    patience_s = 15.0
    points = JOB_POINTS
    producer_points: tuple[str, ...] = ()

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self._seed = seed
        self._place = Workplace(folder / "ads")
        self._mapping = create_ad_campaign_mappings()
        self._place.prepare(self._mapping, 2)
        (folder / "ledgers").mkdir()

    def job(self, *options: str) -> list[str]:
        return job_command(self._place, window_s=WINDOW_S, watermark_s=WATERMARK_S, options=("--quiet", *options))

    def producer(self, round: int) -> list[str]:
        module = "penstock.verify.crash.ads_producer"
        return [sys.executable, "-m", module, str(self.folder), str(self._seed), str(round)]

    def meanwhile(self, generator: random.Random) -> None:
        """Nothing but the load."""

    def settle(self, run_once: Callable[[], None]) -> None:
        run_once()

    def check(self) -> Checked:
        counted = recount(self._place.events, self._mapping, window_s=WINDOW_S, watermark_s=WATERMARK_S, workers=2)
        results = read_results(self._place.results, WINDOW_S)
        folders = sorted((self.folder / "ledgers").iterdir())
        verdict = compare([ledger for folder in folders for ledger in read_ledgers(folder)], counted, results)
        counts = {
            "records": counted.records,
            "accepted": sum(c.count for c in counted.accepted.values()),
            "late": sum(c.count for c in counted.late.values()),
            "dead": sum(counted.dead.values()),
            "windows": len(results.cells),
            "result records": results.records,
        }
        wrong = [f"job: {each}" for each in verdict.job_differences]
        wrong += [f"durable and not in the topic: {each}" for each in verdict.unsent]
        wrong += ["more broken records were sent than are dead"] if verdict.dead_differ else []
        return Checked((*wrong, *verdict.mistakes), counts)
