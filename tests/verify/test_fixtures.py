"""Pipeline tests: what passes, what fails, and what the failure says."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import DeclarationError
from penstock.sqlfile import read_pipeline
from penstock.verify.fixtures import compare, read_fixtures, run_fixture

PIPELINE = """
CREATE PARAMETER least BIGINT DEFAULT 0;
CREATE REFERENCE pages (url VARCHAR PRIMARY KEY, section VARCHAR);
CREATE TABLE visits (id BIGINT PRIMARY KEY, url VARCHAR NOT NULL, n BIGINT NOT NULL CHECK (n > 0));
CREATE VIEW totals AS SELECT section, sum(n)::BIGINT AS n FROM visits JOIN pages USING (url)
    WHERE n > $least GROUP BY section;
"""
GIVEN = """
[[test]]
name = "t"
[[test.given]]
pages = [{ url = "/", section = "home" }]
visits = [{ id = 1, url = "/", n = 2 }, { id = 2, url = "/", n = 5 }]
[[test.given]]
visits = [{ id = 2, url = "/", n = 7 }, { id = 3, url = "/", n = 0 }]
"""


def differences(folder: Path, text: str) -> tuple[str, ...]:
    file = folder / "t.toml"
    file.write_text(text)
    (fixture,) = read_fixtures(file)
    return run_fixture(read_pipeline(PIPELINE, name="p"), fixture, {}).differences


def test_rows_dead_letters_and_epochs(tmp_path: Path) -> None:
    text = GIVEN + '[test.dead]\nvisits = 1\n[test.expect]\ntotals = [{ section = "home", n = 9 }]'
    assert differences(tmp_path, text) == ()


def test_a_wrong_row_and_an_unexpected_dead_letter_are_told(tmp_path: Path) -> None:
    found = differences(tmp_path, GIVEN + '[test.expect]\ntotals = [{ section = "home", n = 8 }]')
    assert found[:2] == ("totals: missing {section: home, n: 8}", "totals: unexpected {section: home, n: 9}")
    assert found[2].startswith("visits: 0 dead letters expected, got 1")


def test_parameters_are_set(tmp_path: Path) -> None:
    text = GIVEN + "[test.set]\nleast = 5\n[test.dead]\nvisits = 1\n[test.expect]\ntotals = [{ n = 7 }]"
    assert differences(tmp_path, text) == ()


def test_an_empty_view_is_expected_by_an_empty_list(tmp_path: Path) -> None:
    found = differences(tmp_path, GIVEN + "[test.dead]\nvisits = 1\n[test.expect]\ntotals = []")
    assert found == ("totals: unexpected {section: home, n: 9}",)


def test_rows_are_compared_as_multisets() -> None:
    assert compare("v", [{"a": 1}, {"a": 1}], [{"a": 1}]) == ["v: unexpected {a: 1}"]
    assert compare("v", [{"a": 1}, {"a": 2}], [{"a": 2}, {"a": 1}]) == []
    assert compare("v", [{"a": 1, "b": None}], [{"b": 2, "a": 1}])[0] == "v: missing {b: 2, a: 1}"
    assert compare("v", [{"a": True}], [{"a": 1}]) != []
    assert compare("v", [{"a": 0.1 + 0.2}], [{"a": 0.3}]) == []
    assert compare("v", [{"a": 1}], [{"b": 1}]) == ["v: no column b; it has a"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[test]]",
        "x = 1",
        "[[test]]\nexpct = 1",
        "[[test]]\n[test.expect]\nv = 3",
        "[[test]\n",
        "[[test]]\ngiven = [[1]]\n[test.expect]\nv = []",
        "[[test]]\ndead = 3",
        "[[test]]\nset = 3\n[test.expect]\nv = []",
    ],
)
def test_a_wrong_file_is_a_clear_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "t.toml"
    file.write_text(text)
    with pytest.raises(DeclarationError) as caught:
        read_fixtures(file)
    assert caught.value.code == "PS-DECL-005"
    assert caught.value.where is not None
    assert caught.value.where.file == str(file)
