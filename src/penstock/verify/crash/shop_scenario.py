"""The shop under crashes: its topics, its job, what happens meanwhile, and the recount at the end."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb

from penstock.connectors.log import LogTopic
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import Error
from penstock.runtime.access import ask_state
from penstock.runtime.control import ask, socket_path
from penstock.storage import files
from penstock.url import Url
from penstock.verify.crash.harness import PRODUCER_POINTS, Checked
from penstock.verify.crash.shop import pipeline
from penstock.verify.crash.shop_producer import NEVER_SOLD, PRODUCTS, TOPICS
from penstock.verify.crash.topics import broken_promises, records
from penstock.verify.fold import compare_view
from penstock.verify.ledgers import compare_ledgers
from penstock.verify.processes import run_module
from penstock.verify.spec import JobReport, OracleSpec
from penstock.verify.views import source_specs, view_specs

PIPELINE = "penstock.verify.crash.shop:pipeline"
# Every epoch of it changes tables, so that none is committed by the redo log.
JOB_POINTS = (
    *("settle.before_commit", "settle.after_commit"),
    *("epoch.before_commit", "epoch.after_commit", "mark.before", "mark.after", "sink.before", "sink.after"),
    *("file.write", "file.rename", "file.renamed"),
    *("file_sink.write", "file_sink.torn", "file_sink.sync", "file_sink.mark", "file_sink.marked"),
    *("folder_sink.spool", "folder_sink.torn", "folder_sink.mark", "folder_sink.roll", "folder_sink.rolled"),
    *("snapshot_sink.content", "snapshot_sink.visible", "snapshot_sink.done"),
    *("log.deliver", "log.delivered_part", "log.delivered"),
    *("log.append", "log.torn", "log.appended", "log.sync", "log.synced", "log.cut", "log.roll"),
)
SETTLE_ROUNDS = 20


class Shop:
    """The scenario `shop` in an empty folder."""

    patience_s = 15.0
    points = JOB_POINTS
    producer_points = PRODUCER_POINTS

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self._seed = seed
        self._graph = pipeline.graph()
        self._known = 5
        self._out = folder / "out"
        self._state = folder / "state"
        self._quiet_until = 0.0
        log = folder / "log"
        LogTopic.create(log / "orders", 2, segment_bytes=64 << 10)
        LogTopic.create(log / "returns", 1, segment_bytes=64 << 10)
        LogTopic.create(log / "users", 1, segment_bytes=64 << 10)
        LogTopic.create(log / "scratch", 1, segment_bytes=4 << 10, retention_bytes=8 << 10)
        LogTopic.create(log / "per_kind", 2, segment_bytes=16 << 10)
        self._publish()

    # -- programs ------------------------------------------------------------------------------------------------------

    def sources(self) -> dict[str, Url]:
        """What the sources are bound to."""
        logs = {name: Url("log", str(self.folder / "log" / name)) for name in ("orders", "returns", "users")}
        return logs | {"products": Url("file", str(self.folder / "products.jsonl"))}

    def job(self, *options: str) -> list[str]:
        out = self._out
        sinks = {
            "per_second": f"file:{out}/per_second.jsonl",
            "per_product": f"file:{out}/per_product.jsonl",
            "named": f"file:{out}/named/?roll=300ms",
            "per_city": f"file:{out}/per_city.jsonl?mode=snapshot",
            "per_kind": f"log:{self.folder}/log/per_kind",
        }
        binds = [f"source:{name}={url}" for name, url in self.sources().items()]
        binds += [f"sink:{name}={url}" for name, url in sinks.items()]
        return [
            *(sys.executable, "-m", "penstock", "run", PIPELINE, "--state", str(self._state), "--quiet"),
            *(part for bind in binds for part in ("--bind", bind)),
            # Small epochs while it is killed, so that there are many steps to be killed at; the last drain is quick.
            *(options or ("--max-epoch-rows", "200")),
        ]

    def producer(self, round: int) -> list[str]:
        module = "penstock.verify.crash.shop_producer"
        return [sys.executable, "-m", module, str(self.folder), str(self._seed), str(round)]

    # -- what happens meanwhile ----------------------------------------------------------------------------------------

    def meanwhile(self, generator: random.Random) -> None:
        if time.monotonic() < self._quiet_until:
            return
        self._quiet_until = time.monotonic() + generator.uniform(0.1, 1.0)
        if generator.random() < 0.3 and self._known < PRODUCTS:
            self._known += 1
            self._publish()
        if socket_path(self._state).exists():
            try:
                ask(self._state, {"do": "dlq.replay", "source": "returns"})
            except Error as problem:
                # The job was killed before it answered, or is starting: asked again later, and at the end.
                if problem.code != "PS-RUN-004":
                    raise

    def _publish(self) -> None:
        rows = [json.dumps({"product": n, "name": f"product {n}"}) + "\n" for n in range(self._known)]
        files.write_atomic(self.folder / "products.jsonl", "".join(rows).encode())

    def settle(self, run_once: Callable[[], None]) -> None:
        self._known = PRODUCTS
        self._publish()
        for _ in range(SETTLE_ROUNDS):
            run_once()
            waiting = [x for x in self._letters() if x["source"] == "returns" and self._would_be_accepted(x)]
            if not waiting:
                return
            ask_state(self._graph, self._state, {"do": "dlq.replay", "source": "returns"})

    def _letters(self) -> list[Mapping[str, object]]:
        reply = ask_state(self._graph, self._state, {"do": "dlq.ls", "status": "dead"})
        return reply["letters"]  # type: ignore[return-value]

    @staticmethod
    def _would_be_accepted(letter: Mapping[str, object]) -> bool:
        return bool(json.loads(str(letter["value"]))["product"] != NEVER_SOLD)

    # -- the recount ---------------------------------------------------------------------------------------------------

    def check(self) -> Checked:
        answer = self._ask_oracle()
        problems = broken_promises(self.folder, TOPICS)
        counts: dict[str, int] = {}
        with duckdb.connect(str(answer), read_only=True) as connection:
            ledgers = compare_ledgers(connection, self._report(), self._views)
        for source, told in ledgers.counts.items():
            counts |= {f"{source} {what}": n for what, n in told.items()}
        counts |= {f"{view} late": n for view, n in ledgers.late.items()}
        if ledgers.difference is not None:
            problems.append(f"the accounting: {ledgers.difference}")
        for view, file in self._outputs().items():
            found = compare_view(answer, view, self._key(view), file)
            counts |= {f"{view} changes": found.changes, f"{view} rows": found.rows}
            if found.difference is not None:
                problems.append(str(found.difference))
        return Checked(tuple(problems), counts)

    def _ask_oracle(self) -> Path:
        plan = compile_for_duckdb(self._graph, in_memory=False)
        self._views = view_specs(plan)
        self._keys = {view.name: view.key for view in plan.views}
        journal, answer, spec = (self.folder / name for name in ("journal", "answer.duckdb", "oracle.json"))
        answer.unlink(missing_ok=True)
        reply = ask_state(self._graph, self._state, {"do": "journal"})
        rows: list[list[str]] = reply["rows"]  # type: ignore[assignment]
        journal.write_text("".join(f"{row[0]}\n" for row in rows), encoding="utf-8")
        told = source_specs(plan, self.sources())
        OracleSpec(PIPELINE, {}, told, self._views, str(journal), str(answer)).write(spec)
        run_module("penstock.verify.oracle", spec)
        return answer

    def _key(self, view: str) -> tuple[str, ...]:
        return self._keys[view]

    def _report(self) -> JobReport:
        status = ask_state(self._graph, self._state, {"do": "status"})
        query = 'SELECT list([view, source, "partition"::VARCHAR, "offset"::VARCHAR]) FROM _ps.late'
        rows: list[list[list[list[str]] | None]] = ask_state(self._graph, self._state, {"do": "sql", "query": query})[
            "rows"
        ]  # type: ignore[assignment]
        positions = {(view, source, int(p), int(o)) for view, source, p, o in rows[0][0] or []}
        dead = tuple((str(x["source"]), x["partition"], x["offset"], str(x["rule"])) for x in self._letters())
        told: dict[str, Mapping[str, int]] = status["sources"]  # type: ignore[assignment]
        # A reference is counted once a version, and the oracle sees the last version only.
        counts = {name: c for name, c in told.items() if name != "products"}
        return JobReport(0, dead, tuple(sorted(positions)), counts)  # type: ignore[arg-type]

    def _outputs(self) -> dict[str, Path]:
        """The change records of each view as one file of lines, whatever the sink."""
        return {
            "per_second": self._out / "per_second.jsonl",
            "per_product": self._out / "per_product.jsonl",
            "named": self._joined(sorted((self._out / "named").glob("*.jsonl"))),
            "per_city": self._snapshot(self._out / "per_city.jsonl"),
            "per_kind": self._topic("per_kind"),
        }

    def _joined(self, parts: list[Path]) -> Path:
        whole = self.folder / "named.jsonl"
        whole.write_bytes(b"".join(part.read_bytes() for part in parts))
        return whole

    def _snapshot(self, table: Path) -> Path:
        lines = self.folder / "per_city.jsonl"
        rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
        marked = [json.dumps(row | {"_op": "+I", "_epoch": 0, "_seq": n}) + "\n" for n, row in enumerate(rows)]
        lines.write_text("".join(marked), encoding="utf-8")
        return lines

    def _topic(self, name: str) -> Path:
        lines = self.folder / f"{name}.jsonl"
        lines.write_bytes(b"".join(value + b"\n" for value in records(self.folder / "log" / name)))
        return lines
