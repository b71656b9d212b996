"""Draining in a fresh process: what it measured comes back, and the process ends without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.bench.backlog import Drain, drain_in_turn

PIPELINE = """
CREATE STREAM sales (shop BIGINT NOT NULL, amount BIGINT NOT NULL CHECK (amount >= 0));
CREATE VIEW totals AS SELECT shop, sum(amount) AS total FROM sales GROUP BY shop;
CREATE SINK totals_out FROM totals;
"""


def test_a_process_that_has_drained_ends_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.sql").write_text(PIPELINE)
    rows = [json.dumps({"shop": n % 5, "amount": n if n % 100 else -1}) for n in range(3_000)]
    (tmp_path / "in.jsonl").write_text("".join(row + "\n" for row in rows))
    binds = (f"sales=file:{tmp_path}/in.jsonl", f"sink:totals_out=file:{tmp_path}/out.jsonl")
    drains = [Drain(str(tmp_path / "p.sql"), binds, {}, tmp_path / f"state-{number}", 500) for number in range(2)]
    assert [drained.rows for drained in drain_in_turn(drains)] == [3_000, 3_000]
    # DuckDB 2.0 tells of every object that outlives the interpreter
    assert capfd.readouterr().err == ""
