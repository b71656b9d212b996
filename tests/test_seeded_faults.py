"""Each seeded fault still has its place in the sources, and its tests are there."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FAULTS = tomllib.loads((ROOT / "tests/mutants.toml").read_text(encoding="utf-8"))["mutant"]


def test_each_is_found_once_and_changes_something() -> None:
    lost = []
    for fault in FAULTS:
        found = (ROOT / fault["file"]).read_text(encoding="utf-8").count(fault["old"])
        if found != 1 or fault["old"] == fault["new"]:
            lost.append(f"{fault['name']}: found {found} times in {fault['file']}")
    assert not lost


def test_each_leaves_a_file_that_can_be_read() -> None:
    for fault in FAULTS:
        if fault["file"].endswith(".py"):
            text = (ROOT / fault["file"]).read_text(encoding="utf-8")
            ast.parse(text.replace(fault["old"], fault["new"]), fault["name"])


def test_their_names_are_their_own_and_their_tests_exist() -> None:
    assert [name for name, count in Counter(fault["name"] for fault in FAULTS).items() if count > 1] == []
    for fault in FAULTS:
        for test in fault["tests"].split():
            path, _, name = test.partition("::")
            assert (ROOT / path).exists(), fault["name"]
            assert not name or f"def {name.split('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8"), fault["name"]
