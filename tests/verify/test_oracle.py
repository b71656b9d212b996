"""The oracle is independent (semantics P1)."""

from __future__ import annotations

import subprocess
import sys

FORBIDDEN = ("penstock.plan", "penstock.engines", "penstock.runtime")


def test_p1_the_oracle_imports_nothing_of_what_it_judges() -> None:
    """With every connector and a loaded pipeline, as it is when it has done its work."""
    program = (
        "import sys, importlib, pkgutil, penstock.connectors\n"
        "import penstock.verify.oracle\n"
        "from penstock.load import load_pipeline\n"
        "load_pipeline('ads').graph({})\n"
        "[importlib.import_module(m.name) for m in pkgutil.iter_modules(penstock.connectors.__path__, "
        "'penstock.connectors.')]\n"
        f"print([m for m in sys.modules if m.startswith({FORBIDDEN!r})])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_specification_is_told(tmp_path: object) -> None:
    command = [sys.executable, "-m", "penstock.verify.oracle", f"{tmp_path}/none.json"]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
