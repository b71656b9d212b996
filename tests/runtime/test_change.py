"""A changed pipeline on the state that it has: what is reused, what sinks are told, and a kill at any step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.runtime.test_reset import Shortened
from tests.runtime.test_runner import CLICKS, START, Bench, click

from penstock.connectors.base import RawBatch
from penstock.connectors.memory import MemorySource, MemoryTopic
from penstock.engines.duckdb.change import inspect
from penstock.engines.duckdb.engine import DATABASE, compile_for_duckdb
from penstock.errors import StateError
from penstock.pipeline import Pipeline
from penstock.runtime.runner import Runner, RunOptions, Until
from penstock.settings import Target
from penstock.url import Url

SHOP = """
CREATE TABLE users (id BIGINT PRIMARY KEY, city VARCHAR, age INTEGER);
CREATE STREAM clicks (user_id BIGINT NOT NULL, n INTEGER NOT NULL, at TIMESTAMP NOT NULL,
    WATERMARK FOR at AS at - INTERVAL '5 seconds') WITH (state = 'unbounded');
"""
STOCK = {
    "per_city": "SELECT u.city, sum(c.n) AS n FROM clicks c JOIN users u ON u.id = c.user_id GROUP BY u.city",
    "adults": "SELECT id, city FROM users WHERE age >= 18",
    "totals": "SELECT user_id, count(*) AS k, sum(n) AS n FROM clicks GROUP BY user_id",
}
CHANGED = {
    "per_city": "SELECT u.city, max(c.n)::HUGEINT AS n FROM clicks c JOIN users u ON u.id = c.user_id GROUP BY u.city",
    "adults": "SELECT id, city FROM users WHERE age >= 21",
    "totals": "SELECT user_id, count(*) AS k, sum(n) AS n FROM clicks WHERE n > 1 GROUP BY user_id",
}


class Shop(Bench):
    """A table and a stream, and views that change."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, SHOP)
        self.topics = {"users": MemoryTopic(1), "clicks": MemoryTopic(1)}
        self.first = 0
        self.seen: set[tuple[int, str]] = set()
        self.last: set[str] = set()

    def declare(self, views: dict[str, str], *, base: str = SHOP, sinks: dict[str, str] | None = None) -> None:
        text = base + "".join(f"CREATE VIEW {name} AS {sql};\n" for name, sql in views.items())
        named = sinks if sinks is not None else {f"s_{name}": name for name in views}
        text += "".join(f"CREATE SINK {sink} FROM {view};\n" for sink, view in named.items())
        self.pipeline = Pipeline.from_sql(text, name="shop")

    def open(self, options: RunOptions) -> Runner:
        graph = self.pipeline.graph()
        bound = {f"source:{s.name}": Url("log", "unused") for s in graph.sources}
        bound |= {f"sink:{s.name}": Url("log", "unused") for s in graph.sinks}
        sources = {name: MemorySource(topic) for name, topic in self.topics.items()}
        if self.first:
            sources["clicks"] = Shortened(self.topics["clicks"], self.first)
        return Runner(
            graph,
            Target("test", "duckdb", self.folder, bound),
            options,
            sources=sources,
            sinks={s.name: self.store.open for s in graph.sinks},
        )

    def user(self, id: int, city: str | None, age: int) -> None:
        self.topics["users"].append([json.dumps({"id": id, "city": city, "age": age}).encode()])

    def click(self, user: int, n: int, second: int = 0) -> None:
        at = f"2026-01-01T00:{second // 60:02}:{second % 60:02}"
        self.topics["clicks"].append([json.dumps({"user_id": user, "n": n, "at": at}).encode()])

    def told(self, runner: Runner, sink: str) -> Counter[tuple[object, ...]]:
        """The sink's output folded."""
        rows: Counter[tuple[object, ...]] = Counter()
        for _, changes in sorted(self.store.epochs(runner.progress.state_id, sink).items()):
            for row in changes.to_pylist():
                sign = 1 if row["_op"] in ("+I", "+U") else -1
                rows[tuple(v for k, v in row.items() if not k.startswith("_"))] += sign
        assert all(n >= 0 for n in rows.values())
        return +rows

    def batch(self, view: str) -> Counter[tuple[object, ...]]:
        """The view over all records, by a session in memory that never saw another plan."""
        with self.pipeline.open() as session:
            for name, topic in self.topics.items():
                session.insert(name, [json.loads(v) for v in values(topic)])
            session.commit()
            return Counter(tuple(row.values()) for row in session.read(view).to_pylist())

    def outlook(self) -> object:
        plan = compile_for_duckdb(self.pipeline.graph(), in_memory=False)
        return inspect(self.folder / DATABASE, plan)


def values(topic: MemoryTopic) -> list[bytes]:
    source, found, offset = MemorySource(topic), [], 0
    while (batch := source.read(0, offset, 1 << 20, 1 << 30)) is not None:
        assert isinstance(batch, RawBatch)
        found += batch.values.to_pylist()
        offset = batch.next_offset
    return found


def filled(folder: Path, views: dict[str, str] = STOCK) -> Shop:
    shop = Shop(folder)
    shop.declare(views)
    feed(shop)
    shop.once(max_rows=3)
    return shop


@pytest.mark.parametrize("view", sorted(STOCK))
def test_the_sink_of_a_changed_view_gets_the_difference(tmp_path: Path, view: str) -> None:
    shop = filled(tmp_path)
    views = STOCK | {view: CHANGED[view]}
    shop.declare(views)
    runner = shop.once(accept_changes=True)
    for name in views:
        assert shop.told(runner, f"s_{name}") == shop.batch(name), name
    shop.user(1, "Oslo", 50)
    shop.click(1, 9, 20)
    runner = shop.once()
    for name in views:
        assert shop.told(runner, f"s_{name}") == shop.batch(name), name


WINDOWS = """
CREATE VIEW per_kind AS SELECT kind, {kind} AS n FROM clicks GROUP BY kind;
CREATE VIEW per_minute WITH (emit = 'final') AS
    SELECT time_bucket(INTERVAL '1 minute', at) AS minute, {minute} AS n FROM clicks {where} GROUP BY ALL;
CREATE SINK kinds FROM per_kind;
CREATE SINK minutes FROM per_minute;
"""


def windows(bench: Bench, kind: str = "count(*)", minute: str = "count(*)", where: str = "", more: str = "") -> None:
    base = CLICKS[: CLICKS.index("CREATE VIEW")].replace("{idle}", "30 seconds")
    bench.pipeline = Pipeline.from_sql(
        base + WINDOWS.format(kind=kind, minute=minute, where=where) + more, name="bench"
    )


def streamed(folder: Path) -> Bench:
    """Ninety clicks, one a second; number 45 comes after number 75, when its minute is still open or just closed."""
    bench = Bench(folder)
    windows(bench)
    order = [*range(45), *range(46, 76), 45, *range(76, 90)]
    for start in range(0, 90, 7):
        bench.topic.append([click(n, n, "view" if n % 3 else "click") for n in order[start : start + 7]])
    bench.once(max_rows=7)
    return bench


def test_a_view_over_a_stream_that_is_not_kept_is_built_from_the_source_again(tmp_path: Path) -> None:
    bench = streamed(tmp_path)
    windows(bench, kind="sum(id)::BIGINT")
    with pytest.raises(StateError, match="accept") as problem:
        bench.once()
    assert "clicks is read again, 90 offsets" in problem.value.got
    assert problem.value.expected == "--accept-changes"
    runner = bench.once(accept_changes=True)
    views = sum(n for n in range(90) if n % 3)
    assert bench.folded(runner, "kinds", "kind", "n") == {"view": views, "click": sum(range(0, 90, 3))}
    assert bench.folded(runner, "minutes", "minute", "n") == {START: 59, START.replace(minute=1): 30}
    assert sum(s.counts.rows for s in runner.progress.sources.values()) == 90


def test_a_changed_final_view_corrects_its_closed_windows(tmp_path: Path) -> None:
    bench = streamed(tmp_path)
    windows(bench, where="WHERE kind = 'view'")
    runner = bench.once(accept_changes=True)
    whole = Bench(tmp_path / "whole")
    whole.topic = bench.topic
    windows(whole, where="WHERE kind = 'view'")
    fresh = whole.once()
    expected = whole.folded(fresh, "minutes", "minute", "n")
    assert bench.folded(runner, "minutes", "minute", "n") == expected
    assert runner.progress.late == fresh.progress.late
    bench.topic.append([click(200, 200), click(201, 190)])
    again, fresh = bench.once(), whole.once()
    assert bench.folded(again, "minutes", "minute", "n") == whole.folded(fresh, "minutes", "minute", "n")


def test_windows_stay_closed_for_a_partition_that_came_later(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    windows(bench)
    first = [click(n, 10 * n) for n in range(10)]
    bench.topic.append(first)
    bench.once(flush=False)
    bench.topic = MemoryTopic(2)
    bench.topic.append(first)
    bench.topic.append([click(100, 5), click(101, 70)], partition=1)
    before = bench.once(flush=False)
    assert before.progress.late == {"per_minute": 1}
    # The same count of what is there, by another text: all of it is read again.
    windows(bench, minute="sum(1)::BIGINT")
    runner = bench.once(accept_changes=True)
    assert runner.progress.late == before.progress.late
    assert bench.folded(runner, "minutes", "minute", "n") == {START: 6, START.replace(minute=1): 5}


def test_a_new_view_and_a_new_sink_get_all_that_was_accepted(tmp_path: Path) -> None:
    bench = streamed(tmp_path)
    more = "CREATE VIEW big AS SELECT id, kind FROM clicks WHERE id >= 80; CREATE SINK bigs FROM big;"
    windows(bench, more=more)
    runner = bench.once(accept_changes=True)
    assert bench.folded(runner, "bigs", "id", "kind") == {n: "view" if n % 3 else "click" for n in range(80, 90)}
    assert len(bench.folded(runner, "kinds", "kind", "n")) == 2
    windows(bench, more=more + "CREATE SINK again FROM per_kind;")
    runner = bench.once()
    assert bench.folded(runner, "again", "kind", "n") == {"view": 60, "click": 30}


def test_what_is_formatted_otherwise_has_not_changed(tmp_path: Path) -> None:
    shop = filled(tmp_path)
    shop.declare(
        {name: sql.replace(" FROM", "  /* told */\n  FROM").replace("count(", "COUNT(") for name, sql in STOCK.items()}
    )
    found = inspect(tmp_path / DATABASE, compile_for_duckdb(shop.pipeline.graph(), in_memory=False))
    assert found is None or found.change.build == ()
    shop.once()


def test_the_state_of_unchanged_views_is_not_touched(tmp_path: Path) -> None:
    shop = filled(tmp_path)
    shop.declare(STOCK | {"totals": CHANGED["totals"]})
    change = inspect(tmp_path / DATABASE, compile_for_duckdb(shop.pipeline.graph(), in_memory=False))
    assert change is not None
    assert {change.change.new.nodes[n].owner for n in change.change.build} == {"totals"}
    assert change.change.views("reused") == ("per_city", "adults", "users", "clicks")


def test_what_is_no_longer_declared_goes_only_if_that_is_accepted(tmp_path: Path) -> None:
    shop = filled(tmp_path)
    shop.declare({"per_city": STOCK["per_city"], "adults": STOCK["adults"]})
    with pytest.raises(StateError, match="accept") as problem:
        shop.once()
    assert "the state of totals, sink s_totals is deleted" in problem.value.got
    runner = shop.once(accept_changes=True)
    assert shop.told(runner, "s_per_city") == shop.batch("per_city")


def test_r4_a_source_that_no_longer_reaches_back_is_named(tmp_path: Path) -> None:
    shop = filled(tmp_path, {"totals": STOCK["totals"]})
    shop.first = 3
    shop.declare({"totals": CHANGED["totals"]})
    with pytest.raises(StateError, match="cannot become") as problem:
        shop.once(accept_changes=True)
    assert "partition 0 begins at offset 3" in problem.value.got
    assert "reset" in problem.value.hint
    shop.declare({"totals": STOCK["totals"]})
    shop.once()


WIDER = SHOP.replace("age INTEGER", "age BIGINT, mail VARCHAR").replace("n INTEGER NOT NULL", "n BIGINT")


def test_a_contract_that_holds_all_that_was_read_keeps_the_state(tmp_path: Path) -> None:
    shop = filled(tmp_path, STOCK | {"mails": "SELECT id, age FROM users WHERE id < 0"})
    views = STOCK | {"mails": "SELECT id, age FROM users WHERE id < 0"}
    shop.declare(
        views | {"posts": "SELECT id, mail FROM users"}, base=WIDER, sinks={"s_adults": "adults", "p": "posts"}
    )
    runner = shop.once(accept_changes=True)
    assert shop.told(runner, "p") == Counter({(n, None): 1 for n in range(4)})
    shop.topics["users"].append([json.dumps({"id": 1, "city": "Oslo", "age": 1 << 40, "mail": "a@b"}).encode()])
    runner = shop.once()
    assert shop.told(runner, "p") == shop.batch("posts")
    assert shop.told(runner, "s_adults") == shop.batch("adults")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("age INTEGER", "age SMALLINT", "users: age was INTEGER and is SMALLINT"),
        ("city VARCHAR", "city VARCHAR NOT NULL", "users: city may not be NULL any more"),
        (", age INTEGER", ", age INTEGER, mail VARCHAR NOT NULL", "users: the new column mail may not be NULL"),
        ("- INTERVAL '5 seconds'", "- INTERVAL '9 seconds'", "clicks: watermark was 0:00:05 and is 0:00:09"),
        ("CREATE TABLE users (id BIGINT PRIMARY KEY", "CREATE TABLE users (id BIGINT NOT NULL", "users: key was id"),
    ],
)
def test_a_contract_that_does_not_is_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    shop = filled(tmp_path, {"adults": STOCK["adults"]})
    shop.declare({"adults": STOCK["adults"]}, base=SHOP.replace(old, new))
    with pytest.raises(StateError) as problem:
        shop.once(accept_changes=True)
    assert told in problem.value.got


def test_a_sink_whose_rows_nobody_has_any_more_is_refused(tmp_path: Path) -> None:
    shop = filled(tmp_path, {"big": "SELECT user_id, n FROM clicks WHERE n > 1"})
    shop.declare({"big": "SELECT user_id, n FROM clicks WHERE n > 2"})
    with pytest.raises(StateError) as problem:
        shop.once(accept_changes=True)
    assert "sink s_big: the rows that big gave it are not kept" in problem.value.got
    shop.declare({"big": "SELECT user_id, n FROM clicks WHERE n > 2"}, sinks={"another": "big"})
    runner = shop.once(accept_changes=True)
    assert shop.told(runner, "another") == shop.batch("big")


def test_windows_that_were_forgotten_stay_as_they_were_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    base = CLICKS[: CLICKS.index("CREATE VIEW")].replace("idle_after = '{idle}'", "correction_horizon = '1 minute'")
    view = "CREATE VIEW m AS SELECT time_bucket(INTERVAL '1 minute', at) AS minute, {} AS n FROM clicks GROUP BY ALL;"
    bench.pipeline = Pipeline.from_sql(base + view.format("count(*)") + "CREATE SINK ms FROM m;", name="bench")
    for start in range(0, 300, 10):
        bench.topic.append([click(n, n) for n in range(start, start + 10)])
    with bench.open(RunOptions(until=Until.DRAINED)) as runner:
        runner.run()
        runner.state.maintain()
        assert len(runner.state.read("m")) == 2
    bench.pipeline = Pipeline.from_sql(base + view.format("max(id)") + "CREATE SINK ms FROM m;", name="bench")
    runner = bench.once(accept_changes=True)
    told = {START.replace(minute=n): 60 for n in range(3)} | {
        START.replace(minute=3): 239,
        START.replace(minute=4): 299,
    }
    assert bench.folded(runner, "ms", "minute", "n") == told
    over = "CREATE VIEW o AS SELECT minute, n FROM m WHERE n > {}; CREATE SINK os FROM o;"
    text = base + view.format("max(id)") + "CREATE SINK ms FROM m;"
    bench.pipeline = Pipeline.from_sql(text + over.format(100), name="bench")
    runner = bench.once(accept_changes=True)
    # All of them, but a sink that is there already cannot be told of what has been forgotten.
    assert bench.folded(runner, "os", "minute", "n") == {START.replace(minute=n): 60 * n + 59 for n in range(1, 5)}
    bench.pipeline = Pipeline.from_sql(text + over.format(200), name="bench")
    with pytest.raises(StateError) as problem:
        bench.once(accept_changes=True)
    assert "sink os: closed windows of m, which o was made of, have been forgotten" in problem.value.got


# -- kills -------------------------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
from pathlib import Path
from tests.runtime.test_change import Shop, STOCK, CHANGED, feed
shop = feed(Shop(Path(sys.argv[1])))
shop.declare(STOCK | {"totals": CHANGED["totals"], "adults": CHANGED["adults"]})
shop.once(accept_changes=True)
"""


def feed(shop: Shop) -> Shop:
    for n, (city, age) in enumerate([("Rome", 17), ("Rome", 19), ("Oslo", 30), (None, 40)]):
        shop.user(n, city, age)
    for n in range(12):
        shop.click(n % 5, n % 4, n)
    return shop


@pytest.mark.parametrize(
    ("point", "changed"),
    [
        pytest.param("change.before_commit", False, marks=pytest.mark.slow),
        ("change.after_commit", True),
        pytest.param("mark.before", True, marks=pytest.mark.slow),
        pytest.param("mark.after", True, marks=pytest.mark.slow),
    ],
)
def test_a_kill_leaves_the_old_state_or_the_new_one(tmp_path: Path, point: str, changed: bool) -> None:
    shop = filled(tmp_path)
    armed = {"PENSTOCK_FAILPOINTS": f"{point}@1"}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=os.environ | armed, start_new_session=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    shop.declare(STOCK | {"totals": CHANGED["totals"], "adults": CHANGED["adults"]})
    plan = compile_for_duckdb(shop.pipeline.graph(), in_memory=False)
    assert (inspect(tmp_path / DATABASE, plan) is None) == changed
    runner = shop.once(accept_changes=True)
    for name in STOCK:
        assert shop.told(runner, f"s_{name}") == shop.batch(name), name


def test_a_kill_while_the_source_is_read_again_leaves_the_old_state(tmp_path: Path) -> None:
    shop = filled(tmp_path, {"totals": STOCK["totals"]})
    script = SCRIPT.replace("STOCK | ", "").replace(', "adults": CHANGED["adults"]', "")
    armed = {"PENSTOCK_FAILPOINTS": "change.read_again@1"}
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=os.environ | armed, start_new_session=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "change").exists()
    runner = shop.once()
    assert shop.told(runner, "s_totals") == shop.batch("totals")
    shop.declare({"totals": CHANGED["totals"]})
    runner = shop.once(accept_changes=True)
    assert shop.told(runner, "s_totals") == shop.batch("totals")
    assert not (tmp_path / "change").exists()


# -- any change after any change ---------------------------------------------------------------------------------------

VARIANTS = {
    "a": [
        "SELECT city, count(*) AS n FROM users GROUP BY city",
        "SELECT city, count(*) FILTER (WHERE age > 20) AS n FROM users GROUP BY city",
        "SELECT city, count(DISTINCT age) AS n FROM users GROUP BY city",
    ],
    "b": [
        "SELECT user_id, sum(n) AS n FROM clicks GROUP BY user_id",
        "SELECT user_id, sum(n) AS n FROM clicks WHERE n > 1 GROUP BY user_id",
        "SELECT user_id, max(n)::HUGEINT AS n FROM clicks GROUP BY user_id",
    ],
    "c": [
        "SELECT c.user_id, u.city, c.n FROM clicks c LEFT JOIN users u ON u.id = c.user_id",
        "SELECT c.user_id, u.city, c.n FROM clicks c JOIN users u ON u.id = c.user_id",
        "SELECT DISTINCT c.user_id, u.city, c.n FROM clicks c JOIN users u ON u.id = c.user_id",
    ],
    "d": [
        "SELECT a.city, b.n FROM a JOIN b ON a.n = b.user_id",
        "SELECT a.city, sum(b.n) AS n FROM a JOIN b ON a.n >= b.user_id GROUP BY a.city",
        "SELECT city, (SELECT max(b.n) FROM b) AS n FROM a",
    ],
}
STEPS = st.lists(st.tuples(*(st.integers(0, 3) for _ in VARIANTS), st.integers(0, 6)), min_size=2, max_size=4)


@pytest.mark.slow
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_whatever_changes_sinks_fold_to_the_batch(steps: list[tuple[int, ...]]) -> None:
    """Views come, change and go (3), rows come in between; a sink of a new name stands for each new shape of a view."""
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        number = 0
        for at, (*chosen, rows) in enumerate(steps):
            views = {name: VARIANTS[name][n] for name, n in zip(VARIANTS, chosen, strict=True) if n < 3}
            if not {"a", "b"} <= set(views):
                views.pop("d", None)
            for _ in range(rows):
                number += 1
                shop.user(number % 4, ["Rome", "Oslo", "Bern"][number % 3], number * 7 % 50)
                shop.click(number % 5, number % 4, number)
            sinks = {f"s_{name}_{at}": name for name in views}
            kept = {f"k_{name}": name for name in views if name in ("a", "b")}
            shop.declare(views, sinks=sinks | kept)
            before = {s for s in kept if any(n == s for _, n in shop.seen)} - shop.last
            if before:
                # A sink that went and came back has the rows of its first life.
                kept = {s: v for s, v in kept.items() if s not in before}
                shop.declare(views, sinks=sinks | kept)
            runner = shop.once(accept_changes=True, max_rows=5)
            shop.last = set(kept)
            shop.seen |= {(at, s) for s in kept}
            for sink, view in (sinks | kept).items():
                assert shop.told(runner, sink) == shop.batch(view), (sink, views)
