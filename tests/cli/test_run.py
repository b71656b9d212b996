"""`penstock run`: when it ends, what it says, its exit codes; `reset`, metrics, and the outputs as JSON."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from penstock.cli.main import run

PIPELINE = """
CREATE STREAM clicks (
    id BIGINT NOT NULL CHECK (id >= 0), at TIMESTAMP NOT NULL, WATERMARK FOR at AS at - INTERVAL '5 seconds'
);
CREATE VIEW per_minute WITH (emit = 'final') AS
    SELECT time_bucket(INTERVAL '1 minute', at) AS minute, count(*) AS n FROM clicks GROUP BY ALL;
CREATE SINK counts FROM per_minute;
"""
BIND = ["--bind", "clicks=file:clicks.jsonl", "--bind", "counts=file:counts.jsonl"]
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clicks.sql").write_text(PIPELINE)
    Path("clicks.jsonl").write_text("")
    more(1, 0, 10)
    more(2, 1, 20)


def more(id: int, minute: int, second: int) -> None:
    with open("clicks.jsonl", "a") as file:
        file.write(json.dumps({"id": id, "at": f"2026-01-01T00:{minute:02}:{second:02}"}) + "\n")


def counts() -> list[dict[str, object]]:
    file = Path("counts.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def told(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    """The summary of a run."""
    capsys.readouterr()
    assert run(["run", "clicks.sql", "--quiet", *BIND, "--output", "json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_once_drains_and_closes_windows(capsys: pytest.CaptureFixture[str]) -> None:
    summary = told(capsys, "--once")
    assert (summary["pipeline"], summary["rows"], summary["dead"], summary["late"]) == ("clicks", 2, 0, 0)
    assert summary["delivered"] == {"counts": 2}
    assert [(r["minute"], r["n"]) for r in counts()] == [
        ("2026-01-01T00:00:00.000000", 1),
        ("2026-01-01T00:01:00.000000", 1),
    ]
    assert told(capsys, "--once")["rows"] == 0
    assert len(counts()) == 2


def test_no_flush_leaves_the_open_window_unemitted(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "--once", "--no-flush")
    assert [r["minute"] for r in counts()] == ["2026-01-01T00:00:00.000000"]
    told(capsys, "--once")
    assert [r["minute"] for r in counts()] == ["2026-01-01T00:00:00.000000", "2026-01-01T00:01:00.000000"]


def test_until_idle_reads_what_is_there_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert told(capsys, "--until-idle")["rows"] == 2
    assert 1.0 < time.monotonic() - began < PATIENCE_S
    assert len(counts()) == 2


def test_for_ends_by_itself_and_leaves_windows_open(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    summary = told(capsys, "--for", "300ms")
    assert 0.3 < time.monotonic() - began < PATIENCE_S
    assert summary["rows"] == 2
    assert summary["interrupted"] is False
    assert [r["minute"] for r in counts()] == ["2026-01-01T00:00:00.000000"]


def test_a_wrong_duration_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "clicks.sql", *BIND, "--for", "soon"]) == 2
    assert "--for needs a duration" in capsys.readouterr().err


def test_a_wrong_declaration_is_all_that_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.sql").write_text(PIPELINE.replace("count(*)", "coun(*)").replace("FROM per_minute", "FROM per_hour"))
    assert run(["run", "wrong.sql", "--once"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "run started" not in captured.err
    assert captured.err.startswith(("wrong.sql:", str(Path.cwd()))), captured.err


def test_a_wrong_query_is_all_that_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.sql").write_text(PIPELINE.replace("count(*)", "coun(*)"))
    assert run(["run", "wrong.sql", *BIND, "--once"]) == 2
    captured = capsys.readouterr()
    assert "run started" not in captured.err
    assert "wrong.sql:6" in captured.err
    assert "PS-DECL-007" in captured.err


def test_metrics_are_served_while_it_runs() -> None:
    command = [sys.executable, "-m", "penstock.cli.main", "run", "clicks.sql", *BIND, "--metrics-port", "0"]
    job = subprocess.Popen([*command, "--log-format", "json"], stderr=subprocess.PIPE, text=True)
    try:
        assert job.stderr is not None
        url = next(e["event"].split()[-1] for e in map(json.loads, job.stderr) if "metrics at" in e["event"])
        deadline = time.monotonic() + PATIENCE_S
        while 'penstock_rows_accepted_total{pipeline="clicks",source="clicks"} 2.0' not in (text := served(url)):
            assert time.monotonic() < deadline, text
        more(-1, 2, 0)
        while 'penstock_rows_dead_total{pipeline="clicks",source="clicks"} 1.0' not in (text := served(url)):
            assert time.monotonic() < deadline, text
        for name in ("epoch_duration_seconds", "commit_duration_seconds", "throughput_rows_per_second", "lag_rows"):
            assert f"penstock_{name}" in text
        for name in ("state_bytes", "watermark_seconds", "rows_late_total", "rows_out_total", "rows_in_total"):
            assert f"penstock_{name}" in text
        job.send_signal(signal.SIGINT)
        assert job.wait(PATIENCE_S) == 130
    finally:
        job.kill()
        job.communicate()


def served(url: str) -> str:
    with urlopen(url) as answer:
        return str(answer.read().decode())


def test_a_metrics_port_in_use_is_a_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run(["run", "clicks.sql", *BIND, "--once", "--quiet", "--metrics-port", port]) == 1
    assert "PS-RUN-005" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_finishes_the_epoch_and_a_later_run_goes_on(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "penstock.cli.main", "run", "clicks.sql", *BIND, "--output", "json"]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not counts():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        job.send_signal(number)
        text, _ = job.communicate(timeout=PATIENCE_S)
    finally:
        job.kill()
    assert job.returncode == code
    assert json.loads(text)["interrupted"] is True
    assert told(capsys, "--once")["rows"] == 0
    assert len(counts()) == 2


def test_reset_starts_again_from_the_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reset", "clicks.sql", *BIND, "--yes"]) == 2
    assert "PS-STATE-007" in capsys.readouterr().err
    told(capsys, "--once")
    Path("counts.jsonl").unlink()
    assert run(["reset", "clicks.sql", *BIND, "--yes"]) == 0
    assert told(capsys, "--once", "--bind", "counts=file:again.jsonl")["rows"] == 2
    assert len(Path("again.jsonl").read_text().splitlines()) == 2
    assert run(["reset", "clicks.sql", *BIND, "--yes"]) == 0
    assert len(list(Path(".penstock/state/clicks").glob("state.duckdb.before-reset-?"))) == 2


def test_reset_asks_first(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    told(capsys, "--once")
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda text: "n")
    assert run(["reset", "clicks.sql", *BIND]) == 130
    assert told(capsys, "--once")["rows"] == 0


@pytest.mark.parametrize(
    "verb", [["status"], ["dlq", "ls"], ["late", "ls"], ["ls"], ["explain"], ["sql", "SELECT * FROM per_minute"]]
)
def test_every_answer_is_json_on_request(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    more(-1, 2, 0)
    more(3, 0, 0)
    told(capsys, "--once")
    words = [*verb[:1], "clicks.sql", *verb[1:]] if verb[0] == "sql" else [*verb, "clicks.sql"]
    assert run([*words, *BIND, "--output", "json"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    found = [json.loads(line) for line in lines] if lines[0].endswith("}") else json.loads(captured.out)
    assert found
    assert captured.err == ""
    assert run([*words, *BIND]) == 0
    assert capsys.readouterr().out


def test_an_error_of_a_run_is_json_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "clicks.sql", *BIND, "--output", "json"]) == 2
    error = json.loads(capsys.readouterr().err)
    assert error["code"] == "PS-STATE-007"
    assert "penstock run clicks.sql" in error["hint"]
