"""`penstock verify` from end to end: a right job passes, a broken one is found, nothing compared is no success."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.clicks import CONTRACTS, PER_CITY, PER_MINUTE, verify, write_records

PIPELINE = CONTRACTS + PER_MINUTE + PER_CITY
SOURCES = ("clicks", "users")

# The pipeline's own module breaks the engine, in the job's process alone.
BROKEN = {
    "a lost change": """
import sys
if "penstock.runtime.runner" in sys.modules:
    from penstock.engines.duckdb import outbox
    whole = outbox.numbered_sql
    def lossy(scope, name):
        return f"SELECT * FROM ({whole(scope, name)}) WHERE n % 3 <> 0"
    outbox.numbered_sql = lossy
""",
    "a dead letter that is not kept": """
import sys
if "penstock.runtime.runner" in sys.modules:
    from penstock.engines.duckdb import letters
    letters.record_dead = lambda connection, source, letters, epoch: None
""",
    "a watermark that is too low": """
import sys
if "penstock.runtime.runner" in sys.modules:
    from penstock.engines.duckdb import sources
    given = sources._us
    sources._us = lambda duration: given(duration) + 100_000_000
""",
}


def prepare(folder: Path, *, extra: str = "", rows: int = 400) -> None:
    (folder / "p.py").write_text(PIPELINE + extra)
    write_records(folder, rows, rows // 8)


@pytest.mark.slow
def test_a_right_job_passes_through_cuts_and_kills(tmp_path: Path) -> None:
    prepare(tmp_path)
    done = verify(tmp_path, SOURCES, "--runs", "3", "--kills", "3", "--output", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["difference"] is None
    assert found["runs"] == 3
    assert set(found["compared"]) == {"per_minute", "per_city"}
    assert found["compared"]["per_minute"] > 5
    assert found["counts"]["clicks"]["rows"] == 400
    assert found["counts"]["clicks"]["dead"] > 10
    assert found["late"]["per_minute"] > 5
    assert sum(found["kills"].values()) + found["missed"] == 6
    assert sum(found["kills"].values()) >= 3
    assert not (tmp_path / ".penstock").exists()


@pytest.mark.slow
def test_hopping_windows_are_compared_with_late_rows_left_out_window_by_window(tmp_path: Path) -> None:
    sql = "SELECT window_start, count(*) AS n FROM clicks GROUP BY hop(at, INTERVAL 2 MINUTES, INTERVAL 30 SECONDS)"
    prepare(tmp_path, extra=f'\npipeline.view("hops", "{sql}")\n')
    done = verify(tmp_path, SOURCES, "--runs", "2", "--kills", "1", "--output", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["compared"]["hops"] > 5
    assert found["late"]["hops"] > 5


def test_one_run_says_what_it_compared(tmp_path: Path) -> None:
    prepare(tmp_path, rows=60)
    done = verify(tmp_path, SOURCES, "--runs", "1")
    assert done.returncode == 0, done.stderr
    assert "per_city: " in done.stdout
    assert "equal to the batch" in done.stdout
    assert "clicks: 60 rows = " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_job_is_found(tmp_path: Path, fault: str) -> None:
    prepare(tmp_path, extra=fault)
    done = verify(tmp_path, SOURCES, "--runs", "1")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "PS-VERIFY-001" in done.stderr
    assert "expected: batch:" in done.stderr
    assert "got: job:" in done.stderr
    assert "equal to the batch" not in done.stdout


def test_no_rows_are_no_success(tmp_path: Path) -> None:
    prepare(tmp_path, rows=0)
    done = verify(tmp_path, SOURCES)
    assert done.returncode == 2
    assert "PS-VERIFY-002" in done.stderr
    assert "the sources are empty" in done.stderr
    assert done.stdout == ""


def test_no_view_that_can_be_compared_is_no_success(tmp_path: Path) -> None:
    prepare(tmp_path, rows=10)
    (tmp_path / "p.py").write_text(
        CONTRACTS.replace('watermark="5 seconds", ', "").replace(
            'state="unbounded")', 'transient=True, state="unbounded")'
        )
        + 'pipeline.view("passed", "SELECT count(*) AS n FROM clicks JOIN users ON id = user_id")\n'
    )
    done = verify(tmp_path, SOURCES)
    assert done.returncode == 2, done.stderr
    assert "PS-VERIFY-002" in done.stderr
    assert "what passes" in done.stderr
