"""Pipeline tests from TOML files: rows in, rows expected (as unit tests in dbt).

A file holds `[[test]]` tables. `given` is one table of source to rows for one epoch, or several for several epochs;
`expect` maps a view to all of its rows. Only the columns that an expected view names are compared, as multisets; a
column that a row leaves out is expected to be NULL. `dead` and `late` say how many of a source's records are dead
letters or late (none, if they say nothing).
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from penstock.errors import DeclarationError, Where
from penstock.pipeline import Pipeline
from penstock.runtime.session import Session

Row = Mapping[str, object]
_KEYS = ("name", "given", "expect", "dead", "late", "set", "flush")


@dataclass(frozen=True)
class Fixture:
    """One test. given: source to rows, per epoch. flush: treat the last epoch as the end of the streams."""

    name: str
    file: Path
    given: tuple[Mapping[str, Sequence[Row]], ...]
    expect: Mapping[str, Sequence[Row]]
    dead: Mapping[str, int] = field(default_factory=dict)
    late: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    flush: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a test showed; no differences: it passed."""

    fixture: Fixture
    differences: tuple[str, ...]


def read_fixtures(file: Path) -> list[Fixture]:
    """The tests of one file.

    Raises:
        DeclarationError: PS-DECL-005, the file is not TOML or has unknown keys.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise _wrong(file, "a test file is not TOML", "TOML", str(problem)) from None
    tests = content.pop("test", None)
    if content or not isinstance(tests, list) or not tests:
        raise _wrong(file, "a test file holds tests alone", "[[test]]", ", ".join(content) or "none")
    return [_fixture(file, number, test) for number, test in enumerate(tests, 1)]


def _fixture(file: Path, number: int, test: object) -> Fixture:
    if not isinstance(test, dict):
        raise _wrong(file, f"test {number} is no table", "[[test]]", repr(test))
    name = str(test.get("name", f"test {number}"))
    unknown = [key for key in test if key not in _KEYS]
    if unknown:
        raise _wrong(file, f"{name}: a key is unknown", ", ".join(_KEYS), ", ".join(unknown))
    given = test.get("given", {})
    epochs = given if isinstance(given, list) else [given]
    expect = test.get("expect", {})
    for relations in (*epochs, expect):
        if not isinstance(relations, dict) or not all(_are_rows(rows) for rows in relations.values()):
            raise _wrong(file, f"{name}: given and expect hold rows", "name = [{column = value}]", repr(relations))
    for key, kind in (("dead", int), ("late", int), ("set", (str, int))):
        values = test.get(key, {})
        if not isinstance(values, dict) or not all(isinstance(value, kind) for value in values.values()):
            raise _wrong(file, f"{name}: {key} is wrong", "a table of names to values", repr(values))
    if not expect and "dead" not in test and "late" not in test:
        raise _wrong(file, f"{name}: nothing is expected", "[test.expect]", "none")
    return Fixture(
        name,
        file,
        tuple(epochs),
        expect,
        test.get("dead", {}),
        test.get("late", {}),
        {key: str(value) for key, value in test.get("set", {}).items()},
        bool(test.get("flush", True)),
    )


def _are_rows(rows: object) -> bool:
    return isinstance(rows, list) and all(isinstance(row, dict) for row in rows)


def _wrong(file: Path, message: str, expected: str, got: str) -> DeclarationError:
    return DeclarationError("PS-DECL-005", message, where=Where(str(file)), expected=expected, got=got)


def run_fixture(pipeline: Pipeline, fixture: Fixture, values: Mapping[str, str]) -> Outcome:
    """Run one test in memory.

    Raises:
        DataError: the test names a source or view that the pipeline does not have.
    """
    kinds = {source.name: source.kind for source in pipeline.graph({**values, **fixture.values}).sources}
    with pipeline.open(values={**values, **fixture.values}) as session:
        for number, epoch in enumerate(fixture.given, 1):
            for source, rows in epoch.items():
                if kinds.get(source) == "reference":
                    session.replace(source, [dict(row) for row in rows])
                else:
                    session.insert(source, [dict(row) for row in rows])
            session.commit(flush=fixture.flush and number == len(fixture.given))
        differences = [
            line
            for view, rows in fixture.expect.items()
            for line in compare(view, session.read(view).to_pylist(), rows)
        ]
        for source, kind in kinds.items():
            differences += _accounting(session, fixture, source, kind)
    return Outcome(fixture, tuple(differences))


def _accounting(session: Session, fixture: Fixture, source: str, kind: str) -> list[str]:
    differences = []
    letters = session.dead_letters(source).to_pylist()
    wanted = fixture.dead.get(source, 0)
    if len(letters) != wanted:
        reasons = "".join(f"\n      {letter['rule']} {letter['field']}: {letter['reason']}" for letter in letters)
        differences.append(f"{source}: {wanted} dead letters expected, got {len(letters)}{reasons}")
    late = session.late_rows(source).num_rows if kind == "stream" else 0
    if late != fixture.late.get(source, 0):
        differences.append(f"{source}: {fixture.late.get(source, 0)} late rows expected, got {late}")
    return differences


def compare(view: str, got: Sequence[Row], expected: Sequence[Row]) -> list[str]:
    """What differs between the rows of a view and those expected, as lines; floats are equal within 1e-9.

    Example:
        >>> compare("v", [{"k": 1, "n": 2}], [{"k": 1, "n": 3}])
        ['v: missing {k: 1, n: 3}', 'v: unexpected {k: 1, n: 2}']
    """
    columns = list(dict.fromkeys(column for row in expected for column in row))
    columns = columns or list(dict.fromkeys(column for row in got for column in row))
    unknown = [column for column in columns if got and column not in got[0]]
    if unknown:
        return [f"{view}: no column {', '.join(unknown)}; it has {', '.join(got[0])}"]
    left = [tuple(row.get(column) for column in columns) for row in got]
    missing = []
    for row in expected:
        wanted = tuple(row.get(column) for column in columns)
        match = next((number for number, found in enumerate(left) if _same(found, wanted)), None)
        if match is None:
            missing.append(wanted)
        else:
            del left[match]
    lines = [f"{view}: missing {_shown(columns, row)}" for row in missing]
    return lines + [f"{view}: unexpected {_shown(columns, row)}" for row in left]


def _same(left: object, right: object) -> bool:
    if isinstance(left, tuple | list) and isinstance(right, tuple | list):
        return len(left) == len(right) and all(_same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, float) or isinstance(right, float):
        if not isinstance(left, int | float | Decimal) or not isinstance(right, int | float | Decimal):
            return False
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(left, datetime) and isinstance(right, datetime):
        return _naive(left) == _naive(right)
    if isinstance(left, Decimal) and isinstance(right, str):
        return str(left) == right
    return left == right


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _shown(columns: Sequence[str], row: Sequence[object]) -> str:
    return "{" + ", ".join(f"{column}: {_text(value)}" for column, value in zip(columns, row, strict=True)) + "}"


def _text(value: object) -> str:
    return "NULL" if value is None else str(value)
