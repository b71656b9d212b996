"""The epoch loop over in-memory topics: draining, resuming, references, idle partitions, refused rows, replays."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from penstock.connectors.base import Guarantee, RowsRefused, Sink, SinkContext
from penstock.connectors.log import LogTopic, LogWriter
from penstock.connectors.memory import MemorySource, MemoryStore, MemoryTopic, MemoryVersions
from penstock.engines.base import EpochResult, LetterQuery
from penstock.errors import DeclarationError, RunError, StateError
from penstock.formats.rows import rows_to_batch
from penstock.pipeline import Pipeline
from penstock.runtime.runner import SWITCH_S, Runner, RunOptions, Until
from penstock.settings import Target
from penstock.storage import failpoints, files
from penstock.url import Url

CLICKS = """
CREATE STREAM clicks (
    id BIGINT NOT NULL, kind VARCHAR NOT NULL, at TIMESTAMP NOT NULL,
    CHECK (id >= 0), WATERMARK FOR at AS at - INTERVAL '5 seconds'
) WITH (idle_after = '{idle}');
CREATE VIEW per_kind AS SELECT kind, count(*) AS n FROM clicks GROUP BY kind;
CREATE VIEW per_minute WITH (emit = 'final') AS
    SELECT time_bucket(INTERVAL '1 minute', at) AS minute, count(*) AS n FROM clicks GROUP BY ALL;
CREATE SINK kinds FROM per_kind;
CREATE SINK minutes FROM per_minute;
"""
START = datetime(2026, 1, 1)


def click(number: int, second: int, kind: str = "view") -> bytes:
    return json.dumps({"id": number, "kind": kind, "at": (START + timedelta(seconds=second)).isoformat()}).encode()


class Bench:
    """A pipeline over memory, run again and again on one state."""

    def __init__(self, folder: Path, sql: str = CLICKS, *, partitions: int = 1, idle: str = "30 seconds") -> None:
        self.pipeline = Pipeline.from_sql(sql.replace("{idle}", idle), name="bench")
        self.folder = folder
        self.topic = MemoryTopic(partitions)
        self.store = MemoryStore()
        self.versions = MemoryVersions()
        self.make: dict[str, Callable[[SinkContext], Sink]] = {}

    def open(self, options: RunOptions) -> Runner:
        graph = self.pipeline.graph()
        bound = {f"source:{s.name}": Url("log", "unused") for s in graph.sources}
        bound |= {f"sink:{s.name}": Url("log", "unused") for s in graph.sinks}
        return Runner(
            graph,
            Target("test", "duckdb", self.folder, bound),
            options,
            sources={s.name: MemorySource(self.topic) for s in graph.sources if s.kind != "reference"},
            versions={s.name: self.versions for s in graph.sources if s.kind == "reference"},
            sinks={s.name: self.make.get(s.name, self.store.open) for s in graph.sinks},
        )

    def once(self, **options: object) -> Runner:
        """Drain and close; the runner is closed, its progress and snapshot stay readable."""
        with self.open(RunOptions(until=Until.DRAINED, **options)) as runner:  # type: ignore[arg-type]
            runner.run()
        return runner

    def folded(self, runner: Runner, sink: str, key: str, value: str) -> dict[object, object]:
        """The sink's changes folded, in the order of epochs; each change must fit what was there."""
        rows: dict[object, object] = {}
        for epoch, changes in sorted(self.store.epochs(runner.progress.state_id, sink).items()):
            for row in changes.to_pylist():
                assert row["_epoch"] == epoch
                if row["_op"] in ("+I", "+U"):
                    assert row[key] not in rows
                    rows[row[key]] = row[value]
                else:
                    assert rows.pop(row[key]) == row[value]
        return rows


def test_a_drained_run_counts_everything_and_a_second_one_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.topic.append([click(n, n, "view" if n % 3 else "click") for n in range(90)])
    first = bench.once(max_rows=7)
    assert bench.folded(first, "kinds", "kind", "n") == {"view": 60, "click": 30}
    assert bench.folded(first, "minutes", "minute", "n") == {START: 60, START + timedelta(minutes=1): 30}
    again = bench.once()
    assert again.snapshot.rows == 0
    assert bench.folded(again, "kinds", "kind", "n") == {"view": 60, "click": 30}


@pytest.mark.parametrize(
    ("options", "maintains"),
    [(RunOptions(until=Until.IDLE), False), (RunOptions(until=Until.STOPPED, for_s=1.0), True)],
    ids=["a pause", "quiet"],
)
def test_a_pause_between_records_is_no_time_for_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: RunOptions, maintains: bool
) -> None:
    monkeypatch.setattr("penstock.runtime.runner.MAINTAIN_EVERY_S", 0.0)
    monkeypatch.setattr("penstock.runtime.runner.QUIET_S", 0.3)
    bench = Bench(tmp_path)
    bench.topic.append([click(1, 1)])
    calls = []
    with bench.open(options) as runner:
        monkeypatch.setattr(runner.state, "maintain", lambda: calls.append(runner.progress.epoch))
        runner.run()
    assert bool(calls) == maintains


@pytest.mark.parametrize("cuts", [(10, 20, 30), pytest.param((1, 2, 3, 59, 60, 61), marks=pytest.mark.slow)])
def test_t4_one_input_cut_into_runs_gives_what_one_run_gives(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    records = [click(n, n) for n in range(90)]
    bench = Bench(tmp_path)
    for start, end in zip((0, *cuts), (*cuts, 90), strict=True):
        bench.topic.append(records[start:end])
        runner = bench.once()
    assert bench.folded(runner, "minutes", "minute", "n") == {START: 60, START + timedelta(minutes=1): 30}


def test_no_flush_leaves_open_windows_unemitted(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.topic.append([click(n, n) for n in range(90)])
    runner = bench.once(flush=False)
    assert bench.folded(runner, "minutes", "minute", "n") == {START: 60}


def test_t1_an_idle_partition_leaves_the_minimum(tmp_path: Path) -> None:
    bench = Bench(tmp_path, partitions=2, idle="300 ms")
    bench.topic.append([click(n, n) for n in range(90)], partition=0)
    bench.topic.append([click(1000, 3)], partition=1)
    with bench.open(RunOptions(flush=False)) as runner:
        feeding = threading.Event()

        def feed() -> None:
            number = 90
            while not feeding.wait(0.02) and number < 1500:
                bench.topic.append([click(number, 90)], partition=0)
                number += 1
                if runner.progress.sources["clicks"].watermark_us == _us(85):
                    break
            runner.stop()

        thread = threading.Thread(target=feed)
        thread.start()
        runner.run()
        thread.join()
    assert runner.progress.sources["clicks"].idle == (1,)
    assert bench.folded(runner, "minutes", "minute", "n") == {START: 61}


def _us(second: int) -> int:
    return round((START + timedelta(seconds=second)).replace(tzinfo=UTC).timestamp() * 1_000_000)


def test_broken_records_are_dead_letters_with_their_bytes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.topic.append([click(1, 1), b"{", click(-1, 2), b"\xff", None, click(2, 3)])
    with bench.open(RunOptions(until=Until.DRAINED)) as runner:
        runner.run()
        letters = runner.state.dead_letters()
    assert [(x.offset, x.value) for x in letters] == [(1, b"{"), (2, click(-1, 2)), (3, b"\xff"), (4, None)]
    counts = runner.progress.sources["clicks"].counts
    assert (counts.rows, counts.accepted, counts.dead) == (6, 2, 4)
    assert bench.folded(runner, "kinds", "kind", "n") == {"view": 2}


REFERENCED = """
CREATE REFERENCE kinds (kind VARCHAR PRIMARY KEY);
CREATE STREAM clicks (id BIGINT NOT NULL, kind VARCHAR NOT NULL REFERENCES kinds(kind), at TIMESTAMP NOT NULL);
CREATE VIEW per_kind AS SELECT kind, count(*) AS n FROM clicks GROUP BY kind;
CREATE SINK counts FROM per_kind;
"""


def publish(bench: Bench, kinds: list[str]) -> None:
    schema = next(s for s in bench.pipeline.graph().sources if s.name == "kinds").schema
    bench.versions.publish([rows_to_batch([{"kind": k} for k in kinds], schema, 0)])


def test_r2_no_stream_is_read_before_the_reference_is_there(tmp_path: Path) -> None:
    bench = Bench(tmp_path, REFERENCED)
    bench.topic.append([click(1, 1)])
    with pytest.raises(StateError, match="PS-DATA-004"):
        bench.once()
    publish(bench, ["view"])
    assert bench.folded(bench.once(), "counts", "kind", "n") == {"view": 1}


def test_r3_a_record_is_judged_by_the_reference_of_its_time_and_again_on_replay(tmp_path: Path) -> None:
    bench = Bench(tmp_path, REFERENCED)
    publish(bench, ["view"])
    bench.topic.append([click(1, 1), click(2, 2, "swipe")])
    runner = bench.once()
    assert bench.folded(runner, "counts", "kind", "n") == {"view": 1}
    publish(bench, ["view", "swipe"])
    runner = bench.once()
    assert bench.folded(runner, "counts", "kind", "n") == {"view": 1}
    for _ in range(3):
        with bench.open(RunOptions(until=Until.DRAINED)) as runner:
            runner.state.request_replay(LetterQuery())
            runner.run()
        assert bench.folded(runner, "counts", "kind", "n") == {"view": 1, "swipe": 1}
    counts = runner.progress.sources["clicks"].counts
    assert (counts.rows, counts.accepted, counts.dead, counts.replayed) == (2, 2, 0, 1)


class Picky:
    """Refuses odd counts."""

    guarantee = Guarantee.IDEMPOTENT

    def delivered(self) -> int:
        return -1

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        odd = tuple(n for n, value in enumerate(changes["n"].to_pylist()) if value % 2)
        if odd:
            raise RowsRefused("kinds", odd, "odd counts")

    def close(self) -> None:
        return


def test_e5_refused_rows_stop_the_run_or_become_dead_letters(tmp_path: Path) -> None:
    stopping = Bench(tmp_path / "stop")
    stopping.make["kinds"] = lambda context: Picky()
    stopping.topic.append([click(1, 1)])
    with pytest.raises(RowsRefused):
        stopping.once()
    keeping = Bench(tmp_path / "keep", CLICKS.replace("FROM per_kind;", "FROM per_kind WITH (on_error = 'dead');"))
    keeping.make["kinds"] = lambda context: Picky()
    keeping.topic.append([click(1, 1), click(2, 2, "buy"), click(3, 3, "buy")])
    with keeping.open(RunOptions(until=Until.DRAINED)) as runner:
        runner.run()
        (letter,) = runner.state.dead_letters()
    assert (letter.source, letter.rule) == ("sink:kinds", "refused_by_sink")
    assert json.loads(letter.value or b"")["kind"] == "view"
    assert runner.progress.sources["clicks"].counts.dead == 0


def test_a_view_that_fails_on_a_row_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    fragile = CLICKS.replace("SELECT kind, count(*) AS n", "SELECT kind, sum(CAST(kind AS BIGINT)) AS n")
    bench = Bench(tmp_path, fragile)
    bench.topic.append([click(1, 1, "5")])
    bench.once()
    bench.topic.append([click(2, 2, "x")])
    with pytest.raises(RunError, match="view per_kind failed on a row"):
        bench.once()
    mended = Bench(tmp_path, fragile)
    mended.topic, mended.store = bench.topic, bench.store
    with pytest.raises(RunError, match="view per_kind failed on a row"):
        mended.once()


def test_an_upsert_sink_without_a_key_is_refused(tmp_path: Path) -> None:
    pipeline = Pipeline.from_sql("CREATE STREAM e (v BIGINT); CREATE SINK all_of_it FROM e;", name="keyless")
    bound = {"source:e": Url("log", "unused"), "sink:all_of_it": Url.parse("stdout:?format=upsert")}
    with pytest.raises(DeclarationError, match="PS-DECL-011"):
        Runner(pipeline.graph(), Target("t", "duckdb", tmp_path, bound), sources={"e": MemorySource(MemoryTopic())})


@pytest.mark.parametrize(("until", "prepared"), [(Until.STOPPED, 1), (Until.DRAINED, 0)])
def test_a_run_that_lasts_is_ready_before_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until, prepared: int
) -> None:
    events: list[str] = []
    monkeypatch.setattr("penstock.runtime.runner.loader", SimpleNamespace(prepare=lambda: events.append("kernel")))
    before = sys.getswitchinterval()

    class Watch:
        def started(self, runner: Runner) -> None:
            events.append("started")

        def epoch(self, runner: Runner, result: EpochResult) -> None:
            assert sys.getswitchinterval() == pytest.approx(SWITCH_S)

        def alert(self, runner: Runner, message: str) -> None: ...

        def stopped(self, runner: Runner, error: BaseException | None) -> None:
            events.append("stopped")

    bench = Bench(tmp_path)
    bench.topic.append([click(1, 1)])
    with bench.open(RunOptions(until=until, for_s=0.0)) as runner:
        runner.observers = (Watch(),)
        runner.run()
    assert events == ["kernel"] * prepared + ["started", "stopped"]
    assert sys.getswitchinterval() == pytest.approx(before)


def test_no_epoch_is_committed_before_its_records_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = tmp_path / "steps"
    steps.touch()
    topic = LogTopic.create(tmp_path / "clicks", 2)
    bench = Bench(tmp_path / "state")
    real = files.sync

    def slow(descriptor: int, path: Path) -> None:
        if path.suffix == ".log":
            # Long enough for a commit that does not wait for it.
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline and "epoch.before_commit" not in steps.read_text():
                time.sleep(0.01)
            with steps.open("a") as file:
                file.write("durable\n")
        real(descriptor, path)

    graph = bench.pipeline.graph()
    target = Target("test", "duckdb", bench.folder, {"source:clicks": Url("log", str(topic.path))})
    sinks = {s.name: bench.store.open for s in graph.sinks}
    with LogWriter(topic, "none") as writer, Runner(graph, target, RunOptions(until=Until.DRAINED), sinks=sinks) as run:
        run.run()
        writer.append(0, [click(1, 1)])
        writer.append(1, [click(2, 2)])
        monkeypatch.setattr("penstock.connectors.log_reader.files.sync", slow)
        monkeypatch.setenv(failpoints.LOG_VARIABLE, str(steps))
        failpoints.reload()
        run.run()
    monkeypatch.undo()
    failpoints.reload()
    told = [line for line in steps.read_text().split() if line in ("durable", "epoch.before_commit")]
    assert told[:3] == ["durable", "durable", "epoch.before_commit"]
    assert run.snapshot.rows == 2


def test_the_rate_is_that_of_the_last_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("penstock.runtime.runner.time.monotonic", lambda: now)
    bench = Bench(tmp_path)
    runner = bench.open(RunOptions(until=Until.DRAINED))
    with runner:
        for second in range(8):
            now = 100.0 + second
            bench.topic.append([click(second * 10 + n, 1) for n in range(10)])
            runner._one_epoch(None)
    assert runner.snapshot.rows == 80
    assert runner.snapshot.rows_per_s == pytest.approx(50 / 4)
