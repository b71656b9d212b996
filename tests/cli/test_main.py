"""The command line as a whole: verbs, exit codes, where output goes, and how fast it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.cli.main import VERBS, exit_code, run
from penstock.errors import CODES, DeclarationError, Error, RunError, Unsupported, VerificationError
from penstock.settings import SettingsError


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "init" in shown
    assert "doctor" in shown
    assert VERBS["ls"].help in shown


def test_an_unknown_verb_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runn"]) == 2
    assert "there is no verb 'runn'" in capsys.readouterr().err


def test_an_error_goes_to_stderr_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", "nothing"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "PS-DECL-014" in captured.err
    assert "hint:" in captured.err


def test_an_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", "nothing", "--output", "json"]) == 2
    assert json.loads(capsys.readouterr().err)["code"] == "PS-DECL-014"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeclarationError("PS-DECL-001", ""), 2),
        (Unsupported("PS-PLAN-001", ""), 2),
        (SettingsError("PS-CONF-001", ""), 2),
        (Error("PS-STATE-007", ""), 2),
        (RunError("PS-RUN-001", ""), 1),
        (Error("PS-STATE-001", ""), 1),
        (VerificationError("PS-VERIFY-001", ""), 3),
        (RunError("PS-TEST-001", ""), 1),
    ],
)
def test_exit_codes(error: Error, code: int) -> None:
    assert error.code in CODES
    assert exit_code(error) == code


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock.cli.ls._entries", interrupted)
    assert run(["ls", "ads"]) == 130


def test_import_and_help_load_no_heavy_library() -> None:
    heavy = "duckdb", "pyarrow", "sqlglot", "numpy", "pydantic", "rich", "prometheus_client", "ibis"
    code = (
        "import sys, penstock\n"
        f"print([m for m in {heavy} if m in sys.modules])\n"
        "assert 'penstock.pipeline' not in sys.modules\n"
        "assert penstock.Pipeline.__name__ == 'Pipeline'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("imported", "left_out"),
    [
        ("penstock; penstock.Pipeline; penstock.Contract", ("duckdb", "pyarrow", "sqlglot", "numpy", "click")),
        ("penstock.cli.main", ("duckdb", "pyarrow", "sqlglot", "numpy", "pydantic", "rich")),
        ("penstock.cli.run", ("prometheus_client", "rich", "numba")),
    ],
)
def test_what_only_some_need_is_imported_for_them_alone(imported: str, left_out: tuple[str, ...]) -> None:
    code = f"import sys, {imported}\nprint([m for m in {left_out} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_parameters_need_a_name_and_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", "ads", "--set", "window"]) == 2
    assert "NAME=VALUE" in capsys.readouterr().err


def test_ls_shows_every_declaration_with_its_binding(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", "ads", "--bind", "results=stdout:", "--set", "window=1m", "--output", "json"]) == 0
    entries = {(e["kind"], e["name"]): e for e in json.loads(capsys.readouterr().out)}
    assert entries["sink", "results"]["binding"] == "stdout:"
    assert entries["parameter", "window"]["detail"] == "interval = 1m"
    assert entries["reference", "campaigns"]["binding"] == "log:.penstock/log/campaigns"


def test_doctor_finds_what_is_installed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["doctor", "--output", "json"]) == 0
    found = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found["duckdb"]["state"] == "ok"
    (tmp_path / "penstock.toml").write_text("[nonsense]")
    assert run(["doctor"]) == 1
    assert "wrong     penstock.toml" in capsys.readouterr().out
