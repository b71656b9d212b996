"""A job that runs is asked from outside, through its socket (semantics S3)."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.cli.main import run
from penstock.connectors.log import LogTopic, LogWriter
from penstock.errors import Error
from penstock.runtime.control import MAX_PATH_BYTES, ask, socket_path

PIPELINE = """
CREATE STREAM clicks (
    user_id BIGINT NOT NULL CHECK (user_id >= 0), email VARCHAR PII, at TIMESTAMP NOT NULL,
    WATERMARK FOR at AS at - INTERVAL '5 seconds'
);
CREATE VIEW per_minute WITH (emit = 'final') AS
    SELECT time_bucket(INTERVAL '1 minute', at) AS minute, count(*) AS n FROM clicks GROUP BY ALL;
CREATE VIEW per_user WITH (state = 'unbounded') AS SELECT user_id, count(*) AS n FROM clicks GROUP BY user_id;
CREATE VIEW some AS SELECT user_id FROM clicks WHERE user_id > 1;
CREATE SINK counts FROM per_minute;
"""
PATIENCE_S = 60.0


def click(user: int, minute: int, second: int) -> bytes:
    at = f"2026-01-01T00:{minute:02}:{second:02}"
    return json.dumps({"user_id": user, "email": "ann@example.org", "at": at}).encode()


def write(records: list[bytes]) -> None:
    with LogWriter(LogTopic.open(".penstock/log/clicks"), "commit") as writer:
        writer.append(0, records)


class Job:
    """`penstock run` in a process of its own, in the current folder."""

    def __init__(self, *options: str) -> None:
        Path("clicks.sql").write_text(PIPELINE)
        if not LogTopic.exists(Path(".penstock/log/clicks")):
            LogTopic.create(Path(".penstock/log/clicks"), 1)
        self.options = options
        command = [sys.executable, "-m", "penstock.cli.main", "run", "clicks.sql", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait_for(self, folder: Path, rows: int) -> dict[str, object]:
        """Its status, once it has read so many rows."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()
            try:
                status = ask(folder, {"do": "status"})
            except Error as problem:
                assert problem.retryable
            else:
                if status["sources"]["clicks"]["rows"] >= rows:  # type: ignore[index]
                    return status
            time.sleep(0.02)
        raise AssertionError("the job does not get on")

    def stop(self) -> tuple[int, str]:
        """SIGTERM; its exit code and its log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, log


STATE = Path(".penstock/state/clicks")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """A job that has read two good rows, a late one and a broken one, and waits for more."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("job"))
    running = Job()
    try:
        write([click(1, 0, 0), click(2, 5, 0), click(3, 0, 1), click(-1, 5, 1)])
        running.wait_for(STATE, 4)
        yield running
        code, log = running.stop()
        assert code == 128 + signal.SIGTERM, log
        assert "Traceback" not in log
        assert not socket_path(STATE).exists()
    finally:
        running.process.kill()
        os.chdir(before)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    """What a verb prints as JSON, an object a line."""
    capsys.readouterr()
    assert run([*arguments, "--output", "json"]) == 0
    text = capsys.readouterr().out
    return [json.loads(text)] if arguments[0] == "status" else [json.loads(line) for line in text.splitlines()]


def test_status_accounts_for_every_row(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    (status,) = said(capsys, "status", "clicks.sql")
    assert status["running"] is True
    assert status["pid"] == job.process.pid
    counts = {"rows": 4, "accepted": 2, "duplicate": 0, "dead": 1, "late": 1}
    assert status["views"]["per_minute"] == {"clicks": counts}  # type: ignore[index]
    assert run(["status", "clicks.sql"]) == 0
    text = capsys.readouterr().out
    assert f"running, pid {job.process.pid}" in text
    assert "4 rows of clicks = 2 accepted + 0 duplicate + 1 dead + 1 late" in text


def test_sql_reads_and_cannot_write(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    rows = said(capsys, "sql", "clicks.sql", "SELECT user_id, n FROM per_user ORDER BY user_id")
    assert rows == [{"user_id": user, "n": 1} for user in (1, 2, 3)]
    for change in ("DELETE FROM per_user", "CREATE TABLE x (a INTEGER)", "ATTACH 'other.db'", "SELECT 1; SELECT 2"):
        assert run(["sql", "clicks.sql", change]) != 0, change
    assert "PS-" in capsys.readouterr().err
    assert said(capsys, "sql", "clicks.sql", "SELECT count(*) AS n FROM per_user") == [{"n": 3}]


def test_sql_on_an_unknown_table_names_the_views(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sql", "clicks.sql", "SELECT * FROM per_usr"]) == 1
    told = capsys.readouterr().err
    assert "PS-RUN-003: there is no view per_usr" in told
    assert "expected: per_minute, per_user" in told
    assert "penstock ls shows" in told
    assert run(["sql", "clicks.sql", 'SELECT * FROM "some"']) == 1
    told = capsys.readouterr().err
    assert "PS-RUN-003: some keeps no rows" in told
    assert "read its sink" in told
    assert run(["sql", "clicks.sql", "SELECT nothing FROM per_user"]) == 1
    assert "Candidate bindings" in capsys.readouterr().err


def test_dead_letters_and_late_rows_are_shown_masked(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    (letter,) = said(capsys, "dlq", "ls", "clicks.sql")
    assert json.loads(str(letter["got"])) == {"user_id": -1, "email": "***", "at": "2026-01-01T00:05:01"}
    (late,) = said(capsys, "late", "ls", "clicks.sql")
    assert (late["user_id"], late["email"]) == (3, "***")
    for verb in (["dlq", "ls"], ["dlq", "show", "clicks.sql", str(letter["id"])], ["late", "ls"]):
        words = verb if "clicks.sql" in verb else [*verb, "clicks.sql"]
        for form in ("json", "text"):
            assert run([*words, "--output", form]) == 0
            assert "ann@" not in capsys.readouterr().out
    assert run(["dlq", "show", "clicks.sql", str(letter["id"]), "--reveal"]) == 0
    assert "ann@example.org" in capsys.readouterr().out


def test_the_socket_is_for_its_owner_alone(job: Job) -> None:
    mode = os.stat(socket_path(STATE)).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_many_may_ask_at_once(job: Job) -> None:
    answers: list[object] = []

    def client() -> None:
        for _ in range(5):
            answers.append(ask(STATE, {"do": "status"})["epoch"])
            answers.append(ask(STATE, {"do": "sql", "query": "SELECT count(*) FROM range(100000)"})["rows"])

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    for each in clients:
        each.join(PATIENCE_S)
    assert len(answers) == 40
    assert answers.count([[100_000]]) == 20


@pytest.mark.parametrize(
    "sent", [b"", b"{", b"null\n", b"[]\n", b'{"do": "nothing"}\n', b'{"do": "sql"}\n', b"\xff\n", b"x" * 100_000]
)
def test_a_client_that_goes_away_or_talks_nonsense_harms_nobody(job: Job, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(socket_path(STATE)))
        client.sendall(sent)
        if sent.endswith(b"\n"):
            client.settimeout(PATIENCE_S)
            assert b"error" in client.recv(1 << 16)
    assert ask(STATE, {"do": "status"})["running"] is True


def test_a_second_job_is_told_who_holds_the_state(job: Job, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "clicks.sql", "--once", "--quiet"]) == 1
    told = capfd.readouterr().err
    assert "PS-STATE-001" in told
    assert f"pid {job.process.pid}" in told


def test_replays_and_corrections_take_effect_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    running = Job("--quiet")
    try:
        write([click(1, 0, 0), click(2, 5, 0), click(3, 0, 1), click(-1, 5, 1)])
        running.wait_for(STATE, 4)
        assert run(["late", "apply", "clicks.sql"]) == 0
        assert run(["dlq", "drop", "clicks.sql", "--all"]) == 0
        deadline = time.monotonic() + PATIENCE_S
        query = "SELECT n FROM per_minute WHERE minute = TIMESTAMP '2026-01-01'"
        while said(capsys, "sql", "clicks.sql", query) != [{"n": 2}]:
            assert time.monotonic() < deadline
        assert said(capsys, "dlq", "ls", "clicks.sql")[0]["status"] == "dropped"
        code, log = running.stop()
        assert code == 128 + signal.SIGTERM, log
    finally:
        running.process.kill()
    assert said(capsys, "sql", "clicks.sql", query) == [{"n": 2}]


def test_a_query_that_takes_long_does_not_keep_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    running = Job("--quiet")
    told: list[Error] = []

    def question() -> None:
        try:
            ask(STATE, {"do": "sql", "query": "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a < b"})
        except Error as problem:
            told.append(problem)

    try:
        write([click(1, 0, 0)])
        running.wait_for(STATE, 1)
        client = threading.Thread(target=question)
        client.start()
        time.sleep(0.5)
        code, log = running.stop()
        client.join(PATIENCE_S)
    finally:
        running.process.kill()
    assert code == 128 + signal.SIGTERM, log
    assert "Traceback" not in log
    assert not client.is_alive()
    assert told


@pytest.mark.slow
def test_a_long_path_moves_the_socket_out_of_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.setenv("TMPDIR", str(deep))
    for ending in (signal.SIGKILL, signal.SIGTERM):
        running = Job("--quiet")
        try:
            write([click(1, 0, 0)])
            assert running.wait_for(STATE, 1)["running"] is True
            path = socket_path(STATE)
            assert STATE.absolute() not in path.parents
            assert len(os.fsencode(path)) <= MAX_PATH_BYTES
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            running.process.send_signal(ending)
            running.process.communicate(timeout=PATIENCE_S)
        finally:
            running.process.kill()
    assert not path.parent.exists()
    assert not (STATE / "control.path").exists()


def test_nobody_answers_for_a_state_without_a_job(tmp_path: Path) -> None:
    with pytest.raises(Error, match="PS-RUN-004"):
        ask(tmp_path, {"do": "status"})
