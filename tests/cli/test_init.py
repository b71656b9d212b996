"""What `penstock init` makes works at once, and nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.cli.main import run


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    assert run(["init", "my-shop"]) == 0
    monkeypatch.chdir(tmp_path / "my-shop")
    capsys.readouterr()
    return tmp_path / "my-shop"


def test_its_tests_pass(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["test", "pipeline.py"]) == 0
    assert capsys.readouterr().out.endswith("2 passed, 0 failed\n")


def test_a_changed_view_fails_its_test(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = made / "pipeline.py"
    file.write_text(file.read_text().replace("count(*)", "count(*) + 1"))
    assert run(["test", "pipeline.py", "--output", "json"]) == 1
    captured = capsys.readouterr()
    assert not json.loads(captured.out)[0]["passed"]
    assert json.loads(captured.err)["code"] == "PS-TEST-001"


def test_a_run_counts_what_is_right_and_keeps_the_rest(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "pipeline.py", "--once", "--quiet"]) == 0
    rows = [json.loads(line) for line in (made / "out/counts.jsonl").read_text().splitlines()]
    assert sorted((row["minute"][:16], row["kind"], row["n"]) for row in rows) == [
        ("2026-01-01T00:00", "click", 1),
        ("2026-01-01T00:00", "view", 2),
        ("2026-01-01T00:01", "purchase", 1),
        ("2026-01-01T00:01", "view", 2),
    ]
    capsys.readouterr()
    assert run(["dlq", "ls", "pipeline.py", "--output", "json"]) == 0
    letters = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [letter["rule"] for letter in letters] == ["ge", "one_of", "not_json"]
    assert "-7" not in letters[0]["value"] + letters[0]["reason"] + letters[2]["got"]


def test_a_second_run_adds_nothing(made: Path) -> None:
    for _ in range(2):
        assert run(["run", "pipeline.py", "--once", "--quiet"]) == 0
    assert len((made / "out/counts.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(("name", "code"), [("my-shop", "PS-DECL-014"), ("1st", "PS-DECL-001")])
def test_nothing_is_overwritten(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, code: str
) -> None:
    monkeypatch.chdir(made.parent)
    assert run(["init", name]) == 2
    assert code in capsys.readouterr().err
