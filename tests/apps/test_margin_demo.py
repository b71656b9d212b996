"""`penstock demo margin`: everything together, from one command."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.apps.margin.demo import Demo
from penstock.cli.main import run
from penstock.errors import RunError


@pytest.mark.slow
def test_the_demo_ends_with_a_checked_trail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # an older demo is replaced
        assert run(["demo", "margin", "--duration", "3s", "--accounts", "20", "--symbols", "5", "--crash", "0.5"]) == 0
        told = capsys.readouterr().out
        assert "cash 20" in told
        assert "MARGIN_CALL" in told
        assert "all as they were written" in told
    question, order = told.splitlines()[-1].removeprefix("try: penstock ").replace('"', "").split(" --order ")
    assert run([*question.split(), "--order", order]) == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    assert run(["demo", "margin", "--folder", "mine"]) == 2
    assert (tmp_path / "mine" / "file").exists()


@pytest.mark.slow
def test_a_job_that_fails_is_told(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo")
    with pytest.raises(RunError, match=r"job\.log"), demo.job(["--no-such-option"]):
        pass


def test_ads_is_the_demo_that_needs_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--no-such-option"]) == 2
    assert "penstock demo ads" in capsys.readouterr().err
