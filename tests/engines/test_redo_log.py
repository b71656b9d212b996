"""The redo log: what it has synced is there after any crash, what it has not is nowhere, and damage is told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import penstock as ps
from penstock.engines.duckdb import redo_log
from penstock.engines.duckdb.engine import DATABASE, DuckState, compile_for_duckdb
from penstock.engines.duckdb.redo_log import RedoLog, read, redo_path
from penstock.errors import StateError
from penstock.runtime.reset import reset_state
from penstock.runtime.session import Session
from penstock.storage import failpoints, unsynced

# The first view's epochs change no table; those of the table do.
SOURCES = """
CREATE STREAM sales (shop BIGINT NOT NULL, amount BIGINT NOT NULL CHECK (amount >= 0));
CREATE TABLE shops (shop BIGINT PRIMARY KEY, city VARCHAR) WITH (state = 'unbounded');
CREATE VIEW totals AS SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS most FROM sales GROUP BY shop;
CREATE VIEW sizes AS SELECT city, count(*) * 10 AS size FROM shops GROUP BY city;
CREATE SINK totals_out FROM totals;
"""


def opened(folder: Path) -> Session:
    folder.mkdir(exist_ok=True)
    plan = compile_for_duckdb(ps.Pipeline.from_sql(SOURCES, name="redo").graph(), in_memory=False)
    return Session(plan.graph, DuckState(plan, folder, collect=True), None)


def step(session: Session, number: int) -> None:
    """An epoch; each fourth one moves the table too, and each fifth has a record that breaks its contract."""
    session.insert("sales", [{"shop": number % 3, "amount": number}, {"shop": 7, "amount": -number % 5 - 4}])
    if number % 4 == 3:
        session.insert("shops", [{"shop": number, "city": f"c{number % 2}"}])
    session.commit()


def light(session: Session, number: int) -> None:
    """An epoch that changes no table."""
    session.insert("sales", [{"shop": number % 3, "amount": number}])
    session.commit()


def rows(session: Session) -> list[object]:
    views = [sorted(map(str, session.read(view).to_pylist())) for view in ("totals", "sizes")]
    return [*views, [t.to_pylist() for _, t in session._state.outbox("totals_out", -1)], len(session.dead_letters())]


@contextmanager
def armed(monkeypatch: pytest.MonkeyPatch, points: str) -> Iterator[None]:
    monkeypatch.setenv(failpoints.ARM_VARIABLE, points)
    failpoints.reload()
    yield
    monkeypatch.delenv(failpoints.ARM_VARIABLE)
    failpoints.reload()


def expected(tmp_path: Path, epochs: int) -> list[object]:
    """After so many light epochs that all were settled."""
    with opened(tmp_path / f"expected-{epochs}") as session:
        for number in range(epochs):
            light(session, number)
            session._state.settle()
        return rows(session)


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The folder that a kill after five light epochs leaves."""
    with opened(tmp_path / "alive") as session:
        for number in range(5):
            light(session, number)
        shutil.copytree(tmp_path / "alive", tmp_path / "left")
    return tmp_path / "left"


def test_an_epoch_is_a_record_or_a_row(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        database = session._state._database
        for number in range(4):
            light(session, number)
            assert [r.epoch for r in read(tmp_path / DATABASE)] == list(range(number + 1))
        assert database.execute("SELECT count(*) FROM _ps.redo").fetchall() == [(0,)]
        session.insert("shops", [{"shop": 1, "city": "a"}])
        session.commit()
        light(session, 5)
        assert database.execute("SELECT epoch FROM _ps.redo").fetchall() == [(4,)]
        assert [(r.epoch, r.after) for r in read(tmp_path / DATABASE)][-2:] == [(3, 2), (5, 4)]
        session._state.settle()
        assert redo_path(tmp_path / DATABASE).stat().st_size == 0


def test_records_and_rows_are_settled_in_the_order_of_their_epochs(tmp_path: Path) -> None:
    with opened(tmp_path / "alive") as session, opened(tmp_path / "other") as other:
        for number in range(17):
            step(session, number)
            step(other, number)
            other._state.settle()
            shutil.copytree(tmp_path / "alive", tmp_path / f"left-{number}")
            if number in (0, 7, 16):
                with opened(tmp_path / f"left-{number}") as again:
                    assert again.progress.epoch == number
                    assert rows(again) == rows(other)


def test_a_torn_record_is_no_epoch(tmp_path: Path, left: Path) -> None:
    whole = redo_path(left / DATABASE).read_bytes()
    ends = [0]
    for record in read(left / DATABASE):
        ends.append(ends[-1] + len(redo_log._encoded(record)))
    assert ends[-1] == len(whole)
    for epochs, cut in ((4, 1), (4, 30), (4, ends[5] - ends[4] - 1), (1, 7), (0, 3)):
        torn = tmp_path / f"torn-{epochs}-{cut}"
        shutil.copytree(left, torn)
        redo_path(torn / DATABASE).write_bytes(whole[: ends[epochs] + cut])
        with opened(torn) as again:
            assert again.progress.epoch == epochs - 1
            light(again, epochs)
            assert rows(again) == expected(tmp_path / torn, epochs + 1)
        with opened(torn) as again:
            assert again.progress.epoch == epochs


def test_zeros_behind_the_last_record_are_no_epoch(left: Path) -> None:
    with redo_path(left / DATABASE).open("ab") as file:
        file.write(bytes(4096))
    with opened(left) as again:
        assert again.progress.epoch == 4


@pytest.mark.parametrize("place", [0, 20, 60, -1])
def test_damage_before_a_whole_record_is_told(left: Path, place: int) -> None:
    path = redo_path(left / DATABASE)
    data = bytearray(path.read_bytes())
    second = len(redo_log._encoded(read(left / DATABASE)[0]))
    data[second + place] ^= 1
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(StateError, match="damaged") as told:
            opened(left)
        assert told.value.code == "PS-STATE-002"
    assert path.read_bytes() == data


def test_what_was_settled_is_passed_over(tmp_path: Path, left: Path) -> None:
    """The cut of the log is not synced: a power loss brings its records back, also behind newer ones."""
    old = redo_path(left / DATABASE).read_bytes()
    with opened(left) as again:
        light(again, 5)
        shutil.copytree(left, tmp_path / "second")
    new = redo_path(tmp_path / "second" / DATABASE).read_bytes()
    for number, (log, epochs) in enumerate(((old, 5), (new + old[len(new) :], 6), (old + new, 6))):
        folder = tmp_path / f"back-{number}"
        shutil.copytree(tmp_path / "second", folder)
        redo_path(folder / DATABASE).write_bytes(log)
        with opened(folder) as once:
            assert once.progress.epoch == epochs - 1
            light(once, epochs)
            assert rows(once) == expected(folder, epochs + 1)


def test_a_log_that_does_not_go_with_the_state_is_refused(tmp_path: Path, left: Path) -> None:
    log = redo_path(left / DATABASE).read_bytes()
    with opened(tmp_path / "other") as other:
        light(other, 0)
    old = tmp_path / "old"
    shutil.copytree(left, old)
    with opened(left) as session:
        light(session, 5)
        later = redo_path(left / DATABASE).read_bytes()
    for folder, log_there, what in (
        (tmp_path / "other", log, "not that of"),
        (tmp_path / "none", log, "state file is gone"),
        (old, later, "do not go together"),
    ):
        folder.mkdir(exist_ok=True)
        redo_path(folder / DATABASE).write_bytes(log_there)
        with pytest.raises(StateError, match=what) as told:
            opened(folder)
        assert told.value.code == "PS-STATE-002"
        assert redo_path(folder / DATABASE).read_bytes() == log_there


@pytest.mark.parametrize("damaged", [False, True])
def test_a_reset_takes_the_log_with_it(left: Path, damaged: bool) -> None:
    if damaged:
        data = bytearray(redo_path(left / DATABASE).read_bytes())
        data[70] ^= 1
        redo_path(left / DATABASE).write_bytes(data)
    done = reset_state(ps.Pipeline.from_sql(SOURCES, name="redo").graph(), left)
    assert (done.carried is None) is damaged
    assert redo_path(done.kept).exists() is damaged
    assert not redo_path(left / DATABASE).exists()
    with opened(left) as again:
        assert again.progress.epoch == -1
        light(again, 0)


def test_an_epoch_whose_record_has_no_room_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as session:
        light(session, 0)
        with armed(monkeypatch, "redo.torn@1=error"), pytest.raises(StateError, match="rolled back"):
            light(session, 1)
        assert session.progress.epoch == 0
        light(session, 7)
        light(session, 8)
        seen = rows(session)
    with opened(tmp_path) as again:
        assert again.progress.epoch == 2
        assert rows(again) == seen


def test_a_short_write_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as session:
        light(session, 0)
        log = session._state._log
        assert log is not None
        assert log._file is not None
        file, write = log._file, log._file.write
        monkeypatch.setattr(file, "write", lambda buffers: write([buffers[0][:50]]))
        with pytest.raises(StateError, match="rolled back"):
            light(session, 1)
        monkeypatch.setattr(file, "write", write)
        assert [record.epoch for record in read(tmp_path / DATABASE)] == [0]
        light(session, 2)
        assert [record.epoch for record in read(tmp_path / DATABASE)] == [0, 1]


def test_after_a_sync_that_failed_only_a_start_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as session:
        light(session, 0)
        with armed(monkeypatch, "redo.sync@1=error"), pytest.raises(StateError, match="rolled back"):
            light(session, 1)
        with pytest.raises(StateError, match="rolled back"):
            light(session, 2)
        assert session.progress.epoch == 0
    with opened(tmp_path) as again:
        light(again, 1)
        assert rows(again) == expected(tmp_path, 2)


def test_what_was_committed_outlives_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(unsynced.VARIABLE, str(tmp_path / "records"))
    with opened(tmp_path / "alive") as session:
        for number in range(5):
            light(session, number)
        unsynced.drop_unsynced(tmp_path / "records")
        shutil.copytree(tmp_path / "alive", tmp_path / "left")
    monkeypatch.delenv(unsynced.VARIABLE)
    with opened(tmp_path / "left") as again:
        assert again.progress.epoch == 4
        assert rows(again) == expected(tmp_path, 5)


COMMITS = """
import sys
from pathlib import Path
from tests.engines.test_redo_log import light, opened
session = opened(Path(sys.argv[1]))
for number in range(9):
    light(session, number)
    print(number, flush=True)
"""


@pytest.mark.parametrize(("point", "told"), [("redo.torn", 3), ("redo.sync", 3), ("epoch.after_commit", 3)])
@pytest.mark.parametrize("power_loss", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_kill_leaves_what_was_told_and_no_half(tmp_path: Path, point: str, told: int, power_loss: bool) -> None:
    environment = os.environ | {
        failpoints.ARM_VARIABLE: f"{point}@{told + 1}",
        unsynced.VARIABLE: str(tmp_path / "records"),
    }
    command = [sys.executable, "-c", COMMITS, str(tmp_path / "state")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, start_new_session=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout.split() == [str(number) for number in range(told)]
    if power_loss:
        unsynced.drop_unsynced(tmp_path / "records")
    with opened(tmp_path / "state") as again:
        # what is whole on the disk may count, though nobody was told
        there = told if point == "redo.torn" or (point == "redo.sync" and power_loss) else told + 1
        assert again.progress.epoch == there - 1
        assert rows(again) == expected(tmp_path, there)
        light(again, there)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    database = tmp_path / DATABASE
    log = RedoLog(database, "ab" * 16)
    entries = [b"", b"PSREDO01" * 9, bytes(range(256)) * 40]
    for epoch, entry in enumerate(entries):
        log.append(epoch, epoch - 1, entry)
    log.close()
    assert [(r.state_id, r.epoch, r.after, r.entry) for r in read(database)] == [
        ("ab" * 16, epoch, epoch - 1, entry) for epoch, entry in enumerate(entries)
    ]
