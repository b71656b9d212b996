"""The margin application under crashes: what its sinks hold is, byte for byte, what a job never killed would have sent.

That job runs the same epochs (`run --journal`) over the same topics, into a state and sinks of its own. What each epoch
makes of its rows is shown elsewhere (the law, the model of the ladder); here it is what kills must not change.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from penstock.apps.margin.feeder import TOPICS, prepare_topics
from penstock.apps.margin.pipeline import pipeline
from penstock.connectors.audit_check import check_trail
from penstock.connectors.log import LogTopic
from penstock.runtime.access import ask_state
from penstock.verify.crash.group import Group
from penstock.verify.crash.harness import Checked
from penstock.verify.crash.topics import broken_promises, records

JOB_POINTS = (
    *("settle.before_commit", "settle.after_commit"),
    *("epoch.before_commit", "epoch.after_commit", "mark.before", "mark.after", "sink.before", "sink.after"),
    *("file_sink.write", "file_sink.torn", "file_sink.sync", "file_sink.mark", "file_sink.marked"),
    *("snapshot_sink.content", "snapshot_sink.visible", "snapshot_sink.done"),
    *("log.deliver", "log.delivered_part", "log.delivered"),
    *("audit.append", "audit.torn", "audit.head"),
)
PARTITIONS = 2


class Margin:
    """The scenario `margin` in an empty folder."""

    # It starts in seconds, and only what it does with a crash of the market passes all of its points.
    patience_s = 60.0
    points = JOB_POINTS
    producer_points: tuple[str, ...] = ()

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self._seed = seed
        self._graph = pipeline.graph()
        prepare_topics({topic: str(folder / "log" / topic) for topic in TOPICS}, PARTITIONS)
        for place in ("killed", "again"):
            LogTopic.create(folder / place / "enforcement", PARTITIONS)

    # -- programs ------------------------------------------------------------------------------------------------------

    def job(self, *options: str) -> list[str]:
        return self._job("killed", *(options or ("--max-epoch-rows", "1000")))

    def _job(self, place: str, *options: str) -> list[str]:
        out = self.folder / place
        sinks = {
            "margin_calculations": f"file:{out}/margin_calculations.jsonl",
            "stress_results": f"file:{out}/stress_results.jsonl",
            "positions": f"file:{out}/positions.jsonl?mode=snapshot",
            "enforcement": f"log:{out}/enforcement",
            "audit": f"audit:{out}/audit?by=account_id&partitions={PARTITIONS}",
        }
        binds = [f"source:{topic}=log:{self.folder}/log/{topic}" for topic in TOPICS]
        binds += [f"sink:{name}={url}" for name, url in sinks.items()]
        return [
            *(sys.executable, "-m", "penstock", "run", "margin", "--state", str(out / "state"), "--quiet"),
            *(part for bind in binds for part in ("--bind", bind)),
            *options,
        ]

    def producer(self, round: int) -> list[str]:
        module = "penstock.verify.crash.margin_producer"
        return [sys.executable, "-m", module, str(self.folder), str(self._seed), str(round)]

    def meanwhile(self, generator: random.Random) -> None:
        """Nothing but the market."""

    def settle(self, run_once: Callable[[], None]) -> None:
        run_once()

    # -- the recount ---------------------------------------------------------------------------------------------------

    def check(self) -> Checked:
        counts = {"epochs": self._run_again()}
        problems = [*broken_promises(self.folder, TOPICS), *self.compare()]
        problems += [f"audit trail: {finding}" for finding in check_trail(self.folder / "killed" / "audit").findings]
        counts |= {f"{name} records": len(lines) for name, lines in self._sent("killed").items()}
        status = ask_state(self._graph, self.folder / "killed" / "state", {"do": "status"})
        told: dict[str, Mapping[str, int]] = status["sources"]  # type: ignore[assignment]
        for topic in TOPICS:
            source = LogTopic.open(self.folder / "log" / topic)
            there = sum(source.latest(partition) for partition in range(source.partitions))
            counts[f"{topic} rows"] = there
            if told[topic]["rows"] != there:
                problems.append(f"source {topic}: {there} records, of which {told[topic]['rows']} were counted")
        return Checked(tuple(problems), counts)

    def compare(self) -> list[str]:
        """Where the sinks of the killed job and of the other one differ."""
        killed, again = self._sent("killed"), self._sent("again")
        return [
            f"sink {name}: {_first_difference(lines, again[name])}"
            for name, lines in killed.items()
            if lines != again[name]
        ]

    def _run_again(self) -> int:
        reply = ask_state(self._graph, self.folder / "killed" / "state", {"do": "journal"})
        rows: list[list[str]] = reply["rows"]  # type: ignore[assignment]
        journal = self.folder / "journal"
        journal.write_text("".join(f"{row[0]}\n" for row in rows), encoding="utf-8")
        again = self.folder / "again"
        job = self._job("again", "--journal", str(journal))
        Group(job, again / "job.log", hits=again / "hits", records=again / "unsynced").wait()
        return len(rows)

    def _sent(self, place: str) -> dict[str, list[bytes]]:
        """What each sink holds; of a snapshot, whose rows have no order, in one."""
        out = self.folder / place
        files = {name: (out / f"{name}.jsonl").read_bytes() for name in ("margin_calculations", "stress_results")}
        snapshot = sorted((out / "positions.jsonl").read_bytes().splitlines())
        held = {name: content.splitlines() for name, content in files.items()}
        trail = [line for part in sorted((out / "audit").rglob("part-*.jsonl")) for line in part.open("rb")]
        return held | {"positions": snapshot, "enforcement": records(out / "enforcement"), "audit": trail}


def _first_difference(killed: list[bytes], again: list[bytes]) -> str:
    for number, (one, other) in enumerate(zip(killed, again, strict=False), 1):
        if one != other:
            return f"record {number} is {one.decode()}, without kills {other.decode()}"
    return f"{len(killed)} records, without kills {len(again)}"
