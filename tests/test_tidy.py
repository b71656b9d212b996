"""Rules of the house that no linter knows. Each failure says what to write instead."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from penstock.errors import CODES

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src/penstock").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 500
# Longer than the rule, each to be split; a new name here needs a reason in the review.
LONG: set[str] = set()
HEAVY = {
    "duckdb": (
        "engines/duckdb/",
        "functions.py",
        "formats/",
        "contract/",
        "verify/",
        "bench/",
        "apps/",
        "runtime/",
        "connectors/",
    ),
    "click": ("cli/",),
    "rich": ("cli/", "bench/"),
    "prometheus_client": ("observe/metrics.py",),
    "pydantic": ("contract/", "engines/duckdb/fold.py", "verify/stepping.py"),
    "sqlglot": ("plan/", "sqlfile/", "engines/", "verify/", "contract/"),
    "ibis": ("ibis_views.py",),
    "starlette": ("page/",),
    "uvicorn": ("page/",),
    "google_crc32c": ("connectors/", "storage/", "runtime/mark.py", "engines/duckdb/redo_log.py"),
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """The top packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_source_file(path: Path) -> None:
    name, text = name_of(path), path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= MAX_LINES or name in LONG, f"{name} has {lines} lines: split it by noun"
    assert path.stem not in ("utils", "util", "helpers", "common", "misc"), f"{name}: name the file after its noun"
    tree = ast.parse(text)
    assert not tree.body or ast.get_docstring(tree), f"{name}: a docstring says what the module is and its invariants"
    assert not re.search(r"except( Exception)?:\s*\n\s*pass\b", text), (
        f"{name}: name the exception, and say why it may pass"
    )
    assert "cli/" in name or not re.search(r"^\s*print\(", text, re.MULTILINE), f"{name}: log, or return what is shown"
    for package in imports(path) & set(HEAVY):
        inside = name.removeprefix("src/penstock/")
        homes = HEAVY[package]
        assert inside.startswith(homes), f"{name} imports {package}: only {', '.join(homes)} may"


def test_long_files_that_have_become_short_leave_the_list() -> None:
    short = [name for name in LONG if (ROOT / name).read_text().count("\n") <= MAX_LINES]
    assert not short, f"take {short} from LONG"


def test_nothing_runs_at_import() -> None:
    """A module body declares: no statement of it may call something for its effect."""
    allowed = {"_codes", "register"}
    for path in SOURCES:
        if path.name == "__main__.py":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                function = node.value.func
                called = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
                assert called in allowed, f"{name_of(path)}:{node.lineno} runs {called} at import: do it in a function"


def test_every_raised_code_is_in_the_registry() -> None:
    for path in SOURCES:
        for code in re.findall(r"PS-[A-Z]+-\d{3}", path.read_text(encoding="utf-8")):
            assert code in CODES, f"{name_of(path)} names {code}: add it to errors.py"


def test_tests_mirror_the_sources() -> None:
    folders = {path.parent.name for path in SOURCES} | {"tests", "law"}  # law: over all sources at once
    for path in TESTS:
        assert path.parent.name in folders, f"{name_of(path)}: put it beside its source's name"


def test_no_machine_is_named() -> None:
    """Files of the repository hold no paths of one machine."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pattern = re.compile(r"/(?:work|root|home/\w+|Users/\w+)/[\w.]")
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".sql", ".txt", "") and path.is_file() and path != Path(__file__):
            found = pattern.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{name}: {found[0] if found else ''} is a path of one machine"
