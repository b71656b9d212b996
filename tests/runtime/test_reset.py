"""`reset`: dead letters and late rows come along, are replayed there, and a kill at any step loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from tests.runtime.test_runner import CLICKS, START, Bench, click

from penstock.connectors.memory import MemorySource, MemoryTopic
from penstock.engines.duckdb.engine import DATABASE
from penstock.errors import DataError, StateError
from penstock.pipeline import Pipeline
from penstock.runtime.access import ask_state
from penstock.runtime.lock import StateLock
from penstock.runtime.reset import Reset, reset_state
from penstock.runtime.runner import Runner, RunOptions, Until
from penstock.settings import Target
from penstock.storage import unsynced
from penstock.url import Url

RELAXED = CLICKS.replace("CHECK (id >= 0), ", "")


class Shortened(MemorySource):
    """A topic of which only the offsets from `first` on are there."""

    def __init__(self, topic: MemoryTopic, first: int) -> None:
        super().__init__(topic)
        self._first = first

    def start(self, partition: int) -> int:
        return self._first

    def earliest(self, partition: int) -> int:
        return self._first


class Place(Bench):
    """A bench whose source may lose its beginning, and that can be reset."""

    first = 0

    def open(self, options: RunOptions) -> Runner:
        graph = self.pipeline.graph()
        bound = {f"source:{s.name}": Url("log", "unused") for s in graph.sources}
        bound |= {f"sink:{s.name}": Url("log", "unused") for s in graph.sinks}
        source = Shortened(self.topic, self.first)
        sinks = {s.name: self.make.get(s.name, self.store.open) for s in graph.sinks}
        return Runner(
            graph, Target("t", "duckdb", self.folder, bound), options, sources={"clicks": source}, sinks=sinks
        )

    def reset(self, sql: str = CLICKS) -> Reset:
        self.pipeline = Pipeline.from_sql(sql.replace("{idle}", "30 seconds"), name="bench")
        return reset_state(self.pipeline.graph(), self.folder)

    def ask(self, do: str, **more: object) -> dict[str, object]:
        return ask_state(self.pipeline.graph(), self.folder, {"do": do, **more})

    def letters(self) -> dict[int, str]:
        rows = self.ask("dlq.ls")["letters"]
        assert isinstance(rows, list)
        return {row["offset"]: row["status"] for row in rows}

    def late(self) -> list[tuple[int, str]]:
        reply = self.ask("late.ls", source="clicks")
        columns, rows = reply["columns"], reply["rows"]
        assert isinstance(columns, list)
        assert isinstance(rows, list)
        return [(row[columns.index("offset")], row[columns.index("status")]) for row in rows]

    def counts(self) -> dict[str, int]:
        status = self.ask("status")["sources"]
        assert isinstance(status, dict)
        return {what: status["clicks"][what] for what in ("rows", "accepted", "duplicate", "dead")}


def filled(folder: Path) -> Place:
    """Offsets 0 to 3 sound, 4 and 5 broken, 6 a minute later, 7 late by a minute, 8 broken, 9 sound."""
    place = Place(folder)
    place.topic.append([click(n, n) for n in range(4)])
    place.topic.append([click(-1, 4), b"{"])
    place.topic.append([click(6, 80), click(7, 5), click(-8, 81), click(9, 82)])
    place.once()
    assert place.letters() == {4: "dead", 5: "dead", 8: "dead"}
    assert place.late() == [(7, "late")]
    return place


@pytest.mark.slow
def test_e3_letters_and_late_rows_come_along_and_get_their_verdict_where_the_source_is_read_again(
    tmp_path: Path,
) -> None:
    place = filled(tmp_path)
    assert place.ask("dlq.drop", ids=[_id(place, 8)]) == {"dropped": 1}
    done = place.reset(RELAXED)
    assert done.carried is not None
    assert (done.carried.dead, done.carried.late, done.carried.left) == (3, 1, ())
    assert place.letters() == {4: "kept", 5: "kept", 8: "dropped"}
    assert place.late() == [(7, "kept")]
    assert place.counts() == {"rows": 0, "accepted": 0, "duplicate": 0, "dead": 0}
    assert place.ask("dlq.replay") == {"requested": 0}
    with pytest.raises(DataError, match="kept: its source is not read that far"):
        place.ask("dlq.replay", ids=[_id(place, 4)])
    runner = place.once()
    # The contract takes a negative id now: what is read again is accepted, and cannot be replayed on top of that.
    assert place.letters() == {4: "reread", 5: "dead", 8: "dropped"}
    assert place.late() == [(7, "late")]
    assert place.counts() == {"rows": 10, "accepted": 9, "duplicate": 0, "dead": 1}
    assert place.ask("dlq.replay") == {"requested": 1}
    assert place.ask("late.apply", source="clicks") == {"requested": 1}
    runner = place.once()
    assert place.folded(runner, "kinds", "kind", "n") == {"view": 9}
    assert place.folded(runner, "minutes", "minute", "n") == {START: 6, START + timedelta(minutes=1): 3}
    assert place.counts() == {"rows": 10, "accepted": 9, "duplicate": 0, "dead": 1}


@pytest.mark.slow
def test_e3_what_the_source_has_lost_is_replayed_and_applied_from_what_was_kept(tmp_path: Path) -> None:
    place = filled(tmp_path)
    place.reset(RELAXED)
    place.first = 8
    place.once()
    assert place.letters() == {4: "dead", 5: "dead", 8: "reread"}
    assert place.late() == [(7, "late")]
    assert place.counts() == {"rows": 2, "accepted": 2, "duplicate": 0, "dead": 0}
    assert place.ask("dlq.replay") == {"requested": 2}
    assert place.ask("late.apply", source="clicks") == {"requested": 1}
    for _ in range(2):
        runner = place.once()
        assert place.letters() == {4: "replayed", 5: "dead", 8: "reread"}
        assert place.late() == [(7, "applied")]
        assert place.folded(runner, "kinds", "kind", "n") == {"view": 3}
        assert place.folded(runner, "minutes", "minute", "n") == {START: 2, START + timedelta(minutes=1): 2}
        assert place.counts() == {"rows": 4, "accepted": 3, "duplicate": 0, "dead": 1}


@pytest.mark.slow
def test_e3_a_second_reset_hands_everything_on_again(tmp_path: Path) -> None:
    place = filled(tmp_path)
    place.reset(RELAXED)
    place.first = 8
    place.once()
    place.ask("dlq.replay")
    place.ask("late.apply", source="clicks")
    place.once()
    place.reset(RELAXED)
    assert place.letters() == {4: "kept", 5: "kept", 8: "kept"}
    place.once()
    # In this state neither is counted, so either can be replayed again.
    assert place.letters() == {4: "dead", 5: "dead", 8: "reread"}
    assert place.late() == [(7, "late")]


@pytest.mark.slow
def test_a_letter_that_was_dropped_stays_so_when_its_record_is_refused_again(tmp_path: Path) -> None:
    place = filled(tmp_path)
    place.ask("dlq.drop", ids=[_id(place, 5)])
    place.reset()
    place.once()
    assert place.letters() == {4: "dead", 5: "dropped", 8: "dead"}
    assert place.counts()["dead"] == 3


def test_late_rows_of_another_contract_stay_in_the_old_file(tmp_path: Path) -> None:
    place = filled(tmp_path)
    done = place.reset(CLICKS.replace("kind VARCHAR NOT NULL", "kind VARCHAR NOT NULL, note VARCHAR"))
    assert done.carried is not None
    assert done.carried.left == (("clicks", 1),)
    assert place.late() == []


def test_a_view_declared_anew_says_itself_which_kept_rows_are_late_for_it(tmp_path: Path) -> None:
    place = filled(tmp_path)
    place.reset(CLICKS.replace("INTERVAL '1 minute'", "INTERVAL '1 hour'"))
    assert place.late() == []


@pytest.mark.slow
def test_what_a_sink_refused_comes_along_under_an_id_of_its_own(tmp_path: Path) -> None:
    place = filled(tmp_path)
    place.reset()
    _refuse(place)
    assert place.ask("dlq.replay", source="sink:kinds") == {"requested": 0}
    rows = place.ask("dlq.ls", source="sink:kinds")["letters"]
    assert isinstance(rows, list)
    with pytest.raises(DataError, match="refused by a sink"):
        place.ask("dlq.replay", ids=[rows[0]["id"]])
    place.reset()
    _refuse(place)
    rows = place.ask("dlq.ls", source="sink:kinds")["letters"]
    assert isinstance(rows, list)
    assert len({row["id"] for row in rows}) == 2
    assert {row["status"] for row in rows} == {"dead"}


def _refuse(place: Place) -> None:
    with place.open(RunOptions(until=Until.DRAINED)) as runner:
        runner.run()
        runner.state.record_refused("kinds", runner.state.query("SELECT 0::BIGINT AS _epoch, 0::BIGINT AS _seq"), "no")


def _id(place: Place, offset: int) -> str:
    rows = place.ask("dlq.ls")["letters"]
    assert isinstance(rows, list)
    return str(next(row["id"] for row in rows if row["offset"] == offset))


# -- when it goes wrong ------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
from penstock.pipeline import Pipeline
from penstock.runtime.reset import reset_state
reset_state(Pipeline.from_sql(Path(sys.argv[1]).read_text(), name="bench").graph(), Path(sys.argv[2]))
"""
SLOW = pytest.mark.slow
POINTS = [
    pytest.param("reset.built", True, marks=SLOW),
    pytest.param("reset.kept", True, marks=SLOW),
    pytest.param("reset.unmarked", True, marks=SLOW),
    pytest.param("file.rename", True, marks=SLOW),
    pytest.param("file.renamed", True, marks=SLOW),
    ("file.renamed", False),
]


@pytest.mark.parametrize(("point", "loses_power"), POINTS)
def test_a_kill_leaves_the_old_state_or_the_new_one(tmp_path: Path, point: str, loses_power: bool) -> None:
    folder = tmp_path / "state"
    place = filled(folder)
    script = tmp_path / "pipeline.sql"
    script.write_text(CLICKS.replace("{idle}", "30 seconds"))
    armed = {"PENSTOCK_FAILPOINTS": f"{point}@1", unsynced.VARIABLE: str(tmp_path / "records")}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(script), str(folder)],
        env=os.environ | armed,
        start_new_session=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    undone = unsynced.drop_unsynced(tmp_path / "records") if loses_power else []
    fresh = place.letters()[4] == "kept"
    assert fresh == (point == "file.renamed" and not undone)
    runner = place.once()
    assert runner.snapshot.rows == (10 if fresh else 0)
    assert place.folded(runner, "kinds", "kind", "n") == {"view": 7}
    done = place.reset()
    assert done.kept.exists()
    assert place.letters() == {4: "kept", 5: "kept", 8: "kept"}
    runner = place.once()
    assert place.folded(runner, "kinds", "kind", "n") == {"view": 7}
    assert place.letters() == {4: "dead", 5: "dead", 8: "dead"}
    # A reset that was killed after it had named the old file is not kept twice.
    if not undone:
        assert len(list(folder.glob("*.before-reset-*"))) == (2 if fresh else 1)
    assert not list(folder.glob(".*fresh*"))


def test_a_state_that_cannot_be_read_is_set_aside_as_it_is(tmp_path: Path) -> None:
    place = filled(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"not a database" * 1000)
    done = place.reset()
    assert done.carried is None
    assert done.kept.read_bytes().startswith(b"not a database")
    runner = place.once()
    assert place.folded(runner, "kinds", "kind", "n") == {"view": 7}


def test_a_full_disk_leaves_the_old_state_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.storage import failpoints

    place = filled(tmp_path)
    monkeypatch.setenv("PENSTOCK_FAILPOINTS", "reset.built@1=error")
    failpoints.reload()
    with pytest.raises(StateError, match="PS-STATE-005"):
        place.reset()
    monkeypatch.delenv("PENSTOCK_FAILPOINTS")
    failpoints.reload()
    assert place.once().snapshot.rows == 0
    assert place.letters() == {4: "dead", 5: "dead", 8: "dead"}


def test_a_running_job_is_not_reset(tmp_path: Path) -> None:
    place = filled(tmp_path)
    lock = StateLock.take(tmp_path)
    try:
        with pytest.raises(StateError, match="PS-STATE-001"):
            place.reset()
    finally:
        lock.release()
