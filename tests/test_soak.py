"""The soak's script adds up what its parts record, and misses what did not happen."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests import soak
from tests.conftest import pytest_collection_modifyitems

SCRIPT = Path(__file__).parent.parent / "scripts/soak.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def record_all(folder: Path, monkeypatch: pytest.MonkeyPatch, *, incremental: int) -> None:
    monkeypatch.setattr(soak, "_RECORDS", str(folder))
    shares = {"cases": {"all": 9_990, "join": 300}, "incremental": {"all": 9_990, "join": incremental}}
    for part in range(2):
        monkeypatch.setenv("PYTEST_CURRENT_TEST", f"random[{part}] (call)")
        soak.record("random queries", 10.0, **shares, refused=10)
    for name, kills in (("shop", 250), ("ads", 250), ("margin", 60)):
        monkeypatch.setenv("PYTEST_CURRENT_TEST", f"kills[{name}] (call)")
        soak.record(f"kills: {name}", 5.0, kills=kills, checked={"rows": 7}, problems=[])
    for _ in range(2):
        # A test that is run again counts once.
        monkeypatch.setenv("PYTEST_CURRENT_TEST", "schedules (call)")
        soak.record("simulated schedules", 5.0, runs=300, problems=[])


def test_a_whole_soak_misses_nothing(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_all(tmp_path, monkeypatch, incremental=290)
    parts = script.read_parts(tmp_path)
    assert list(script.missing(parts, 1.0)) == []
    shown = script.page(parts, ["heading"], [])
    assert "| random queries | 20 | cases 19,980, refused 20 |" in shown
    assert "| join | 600 | 96.7% |" in shown
    assert "Nothing lost" in shown


def test_what_did_not_happen_is_missed(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_all(tmp_path, monkeypatch, incremental=200)
    for file in tmp_path.glob("*.json"):
        entry = json.loads(file.read_text())
        if entry["part"] == "kills: ads":
            entry |= {"kills": 249, "problems": ["a row is gone"]}
        if entry["part"] == "simulated schedules":
            file.unlink()
        else:
            file.write_text(json.dumps(entry))
    assert list(script.missing(script.read_parts(tmp_path), 1.0)) == [
        "kills: ads: 249 of 250 kills",
        "kills: ads: a row is gone",
        "simulated schedules: 0 of 300 runs",
        "join: 400 of 600 cases ran without a refresh",
    ]


def test_what_has_passed_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(soak, "_RECORDS", str(tmp_path))
    items: list[pytest.Item] = [request.node]
    pytest_collection_modifyitems(request.config, items)
    assert items == [request.node]
    soak.mark_passed(request.node)
    pytest_collection_modifyitems(request.config, items)
    assert items == []


def test_records_are_kept_for_a_commit_alone(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words], cwd=tmp_path, check=True)

    monkeypatch.setattr(script, "ROOT", tmp_path)
    git("init", "-q")
    (tmp_path / ".gitignore").write_text(".penstock/\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    with script.records(1, 1.0) as kept:
        pass
    with script.records(1, 1.0) as again, script.records(2, 1.0) as other:
        assert kept == again != other
    (tmp_path / "changed").touch()
    with script.records(1, 1.0) as passing:
        assert passing != kept
    assert kept.exists()
    assert not passing.exists()
