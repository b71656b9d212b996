"""Views that the epochs decide are compared: steps, transient rows, frozen windows; and streams read in two ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.clicks import verify, write_records

PIPELINE = """
from datetime import datetime, timedelta
from pydantic import BaseModel
import penstock as ps
from penstock.steps import Step, Timer

class Click(ps.Contract):
    who: int = ps.Field(ge=0)
    at: datetime

class User(ps.Contract):
    who: int
    city: str | None = None

class Total(ps.Contract):
    who: int | None
    what: str
    total: int

class Kept(BaseModel):
    total: int = 0

def watch(state, changes, timers):
    state, rows = state or Kept(), []
    for change in changes:
        value = change.row["who"]
        state = Kept(total=state.total * 2 % 1009 + value)
        rows.append({"who": value, "what": change.op, "total": state.total})
    for timer in timers:
        rows.append({"who": None, "what": f"timer {timer.at:%H:%M:%S}", "total": state.total})
        state = Kept()
    return Step(state, rows, [Timer(c.time + timedelta(seconds=20)) for c in changes])

def note(state, changes, timers):
    n = state or 0
    rows = [{"who": c.row["n"], "what": f"{c.op} {c.row['city']}", "total": n + i} for i, c in enumerate(changes)]
    return Step(n + len(changes), rows)

pipeline = ps.Pipeline("clicks")
pipeline.stream("clicks", Click, event_time="at", watermark="5 seconds", state="unbounded")
pipeline.stream("passing", Click, transient=True, state="unbounded")
pipeline.table("users", User, key="who")
pipeline.view(
    "answers",
    "SELECT p.who, p.at, u.city FROM passing AS p LEFT JOIN users AS u USING (who)",
    state="unbounded",
)
pipeline.view("answered", "SELECT city, count(*) AS n FROM answers GROUP BY city", state="unbounded")
pipeline.view(
    "frozen",
    "SELECT time_bucket(INTERVAL '1 minute', c.at) AS minute, u.city, count(*) AS n "
    "FROM clicks AS c JOIN users AS u USING (who) GROUP BY ALL",
    emit="final",
)
pipeline.view(
    "both",
    "SELECT w.minute, w.n, x.who FROM (SELECT time_bucket(INTERVAL '1 minute', at) AS minute, count(*) AS n "
    "FROM clicks GROUP BY 1) AS w JOIN clicks AS x ON x.who * 61 = w.n OR x.at = w.minute + INTERVAL '10 seconds'",
    state="unbounded",
)
pipeline.view("even", "SELECT who, at FROM clicks WHERE who % 2 = 0")
pipeline.step("sums", input="clicks", key="who", state=Kept, output=Total, function=watch)
pipeline.step("even_sums", input="even", key="who", state=Kept, output=Total, function=watch)
pipeline.view(
    "cities",
    "SELECT city, count(*) AS n, max(at) AS at FROM clicks JOIN users USING (who) GROUP BY city",
    state="unbounded",
)
pipeline.step("notes", input="cities", key="city", time="at", state=int, output=Total, function=note)
pipeline.view("per_what", "SELECT left(what, 5) AS w, count(*) AS n FROM sums GROUP BY 1", state="unbounded")
"""
SOURCES = ("clicks", "passing", "users")
VIEWS = {"answers", "answered", "frozen", "both", "even", "sums", "even_sums", "cities", "notes", "per_what"}
IN_THE_JOB = """
import sys
if "penstock.runtime.runner" in sys.modules:
    from penstock.engines.duckdb import blocks, fold, outbox
"""
# What each fault breaks in the engine, and the view that must tell it.
BROKEN = {
    "sums": """
    given = fold._by_time
    fold._by_time = lambda changes: given(list(reversed(changes)))
""",
    "notes": """
    given = fold._changes
    fold._changes = lambda *a: {k: [c for c in cs if c.op != "-D"] for k, cs in given(*a).items()}
""",
    "frozen": """
    given = blocks.final.rows_sql
    blocks.final.rows_sql = lambda block, content, after, upto: given(block, content, "TIMESTAMP '-infinity'", upto)
""",
    "answers": """
    given = outbox.numbered_sql
    def changed(scope, node):
        sql = given(scope, node)
        return f"SELECT * REPLACE (coalesce(city, 'Rome') AS city) FROM ({sql})" if node == "answers" else sql
    outbox.numbered_sql = changed
""",
}


def prepare(folder: Path, *, extra: str = "") -> None:
    (folder / "p.py").write_text(PIPELINE + extra)
    clicks = write_records(folder, 200, 200, names=("who", "who"), most=6, whole_seconds=True)
    (folder / "passing.jsonl").write_text("".join(clicks[::2]))


@pytest.mark.slow
def test_all_that_the_epochs_decide_is_compared(tmp_path: Path) -> None:
    prepare(tmp_path)
    done = verify(tmp_path, SOURCES, "--runs", "2", "--kills", "2", "--output", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["compared"]) == VIEWS
    assert not found["skipped"]
    assert all(found["compared"].values())
    assert found["late"]["both"] > 3
    assert found["epochs"] > 10


@pytest.mark.slow
@pytest.mark.parametrize(("view", "fault"), BROKEN.items(), ids=BROKEN.keys())
def test_a_broken_engine_is_found_there(tmp_path: Path, view: str, fault: str) -> None:
    prepare(tmp_path, extra=IN_THE_JOB + fault)
    done = verify(tmp_path, SOURCES, "--runs", "2", "--kills", "0")
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"{view}, " in done.stderr
