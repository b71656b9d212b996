"""A profile of a real run: every part was entered, the parts are the whole, and the table says so."""

from __future__ import annotations

import json
import time

import pytest
from tests.cli.test_run import PIPELINE

from penstock.bench.profile import profile_table
from penstock.cli.main import run
from penstock.runtime.profiling import Profile, read_profile


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Profile, float]:
    """The profile of `penstock run --once`, and the time that the whole command took."""
    folder = tmp_path_factory.mktemp("profiled")
    (folder / "p.sql").write_text(PIPELINE)
    rows = [{"id": n, "at": f"2026-01-01T00:00:{n % 60:02}"} for n in range(3_000)]
    (folder / "clicks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    began = time.perf_counter()
    bind = ("--bind", f"clicks=file:{folder}/clicks.jsonl", "--bind", f"counts=file:{folder}/out.jsonl")
    where = ("--state", str(folder / "state"), "--profile", str(folder / "profile.json"))
    assert run(["run", str(folder / "p.sql"), "--once", "--quiet", "--max-epoch-rows", "1000", *bind, *where]) == 0
    return read_profile(folder / "profile.json"), time.perf_counter() - began


def test_the_parts_are_the_whole_run(profile: tuple[Profile, float]) -> None:
    found, command_s = profile
    assert (found.rows, found.epochs) == (3_000, 3)
    assert {"read", "check", "merge", "outbox", "commit", "mark", "deliver", "rest"} <= set(found.parts)
    assert sum(part.total_s for part in found.parts.values()) == pytest.approx(found.whole_s)
    assert 0 < found.profiling_s < found.whole_s < command_s
    assert found.parts["rest"].total_s < 0.5 * found.busy_s
    assert set(found.beside_s) == {"counts"}


def test_the_table_ends_with_the_sum_of_its_rows(profile: tuple[Profile, float]) -> None:
    *parts, whole = profile_table(profile[0]).rows
    for column in (2, 3, 4):
        assert sum(float(str(row[column])) for row in parts) == pytest.approx(float(str(whole[column])))
    assert whole[3] == 100.0
