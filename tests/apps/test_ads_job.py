"""Jobs under test: how another program is told where things are, and how one sees that it reads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock.apps.ads.job import Workplace, other_job, shipped_job
from penstock.errors import DeclarationError, RunError


def test_words_and_environment_of_another_program(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    text = f"'{sys.executable}' -c 'print(1)' --in={{events}} '{{results}} {{window}}' '{{\"a\": 1}}' {{unknown}}"
    plan = other_job(place, text, window_s=10, watermark_s=5)
    events, results = f"log:{tmp_path}/log/events", f"log:{tmp_path}/log/results"
    window = plan.environment["PENSTOCK_WINDOW"]
    assert plan.command[1:] == ("-c", "print(1)", f"--in={events}", f"{results} {window}", '{"a": 1}', "{unknown}")
    assert plan.environment["PENSTOCK_EVENTS"] == events
    assert plan.environment["PENSTOCK_CAMPAIGNS"] == f"log:{tmp_path}/log/campaigns"
    assert sorted(plan.environment) == [
        f"PENSTOCK_{name}" for name in ("CAMPAIGNS", "EVENTS", "READY", "RESULTS", "STATE", "WATERMARK", "WINDOW")
    ]
    assert plan.drain is None


def test_no_shell_is_involved(tmp_path: Path) -> None:
    plan = other_job(Workplace(tmp_path), f"{sys.executable} -c pass; touch {tmp_path}/made", window_s=1, watermark_s=1)
    process = plan.start()
    process.wait()
    assert plan.command[2:] == ("pass;", "touch", f"{tmp_path}/made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("text", ["", "no-such-program-anywhere", "'open"])
def test_what_cannot_be_started_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DeclarationError, match="PS-BENCH-003"):
        other_job(Workplace(tmp_path), text, window_s=1, watermark_s=1)


def test_a_wrong_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="PS-BENCH-003"):
        other_job(Workplace(tmp_path), sys.executable, window_s=1, watermark_s=1, ready_line="(")


def test_ready_by_file_or_by_line(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    by_file = other_job(place, sys.executable, window_s=1, watermark_s=1)
    by_line = other_job(place, sys.executable, window_s=1, watermark_s=1, ready_line="state .* RUNNING")
    assert (by_file.is_ready(), by_line.is_ready()) == (False, False)
    Path(by_file.environment["PENSTOCK_READY"]).touch()
    assert (by_file.is_ready(), by_line.is_ready()) == (True, False)
    place.job_log.write_text("starting\nstate change to RUNNING\n")
    assert by_line.is_ready()


def test_the_shipped_job_is_ready_when_its_loop_has_begun(tmp_path: Path) -> None:
    plan = shipped_job(Workplace(tmp_path), window_s=1, watermark_s=1)
    assert not plan.is_ready()
    plan.log.write_text("info    run started\n")
    assert not plan.is_ready()
    plan.log.write_text("info    run started\ninfo    loop started\n")
    assert plan.is_ready()
    assert plan.drain is not None
    assert plan.drain[-1] == "--once"


def test_a_job_that_ends_or_is_not_ready_says_what_it_printed(tmp_path: Path) -> None:
    text = f"{sys.executable} -c \"print('no broker')\""
    process = other_job(Workplace(tmp_path), text, window_s=1, watermark_s=1).start()
    with pytest.raises(RunError, match="no broker"):
        process.wait_until(lambda: False, 60)
    silent = other_job(Workplace(tmp_path), f"{sys.executable} -c 'input()' ", window_s=1, watermark_s=1).start()
    with pytest.raises(RunError, match="PS-BENCH-004"):
        silent.wait_until(lambda: False, 0.0)
    silent.kill()
