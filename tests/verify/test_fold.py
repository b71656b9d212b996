"""The comparison finds what differs, and only that."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.examples import examples

from penstock.verify.fold import Compared, close, compare_view


def answer(folder: Path, select: str, *, view: str = "v") -> Path:
    """The oracle's answer: one view, made by a query."""
    path = folder / "answer.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA views")
        connection.execute(f'CREATE TABLE views."{view}" AS {select}')
    return path


def compared(folder: Path, select: str, changes: list[dict[str, object]], key: tuple[str, ...] = ()) -> Compared:
    """`changes` against the query; `_epoch` and `_seq` are counted where a change does not say them."""
    file = folder / "v.jsonl"
    counted: dict[object, int] = {}
    lines = []
    for change in changes:
        epoch = change.get("_epoch", 0)
        seq = counted.get(epoch, 0)
        counted[epoch] = seq + 1
        lines.append(json.dumps({"_op": "+I", "_epoch": epoch, "_seq": seq, "_correction": False} | change) + "\n")
    file.write_text("".join(lines))
    return compare_view(answer(folder, select), "v", key, file)


def test_equal_sides_have_no_difference(tmp_path: Path) -> None:
    found = compared(
        tmp_path,
        "SELECT * FROM (VALUES (1, 'a'), (2, NULL), (2, NULL)) AS t(k, s)",
        [{"k": 1, "s": "a"}, {"k": 2, "s": None}, {"k": 2, "s": None}],
    )
    assert found.difference is None
    assert (found.changes, found.rows) == (3, 3)


def test_updates_fold(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [
        {"k": 1, "n": 1},
        {"k": 1, "n": 1, "_op": "-U", "_epoch": 1},
        {"k": 1, "n": 2, "_op": "+U", "_epoch": 1},
        {"k": 7, "n": 1, "_epoch": 1},
        {"k": 7, "n": 1, "_op": "-D", "_epoch": 2},
    ]
    assert compared(tmp_path, "SELECT 1 AS k, 2 AS n", changes, ("k",)).difference is None


def test_a_changed_value_is_told_with_epoch_key_and_both_rows(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [
        {"k": 1, "n": 5},
        {"k": 2, "n": 4},
        {"k": 1, "n": 5, "_op": "-U", "_epoch": 3},
        {"k": 1, "n": 6, "_op": "+U", "_epoch": 3},
    ]
    found = compared(tmp_path, "SELECT * FROM (VALUES (1, 7), (2, 4)) AS t(k, n)", changes, ("k",)).difference
    assert found is not None
    assert (found.view, found.epoch, dict(found.key)) == ("v", 3, {"k": 1})
    assert (found.job, found.batch) == ({"k": 1, "n": 6}, {"k": 1, "n": 7})


@pytest.mark.parametrize("key", [(), ("k",)], ids=["multiset", "keyed"])
def test_a_lost_row_is_found(tmp_path: Path, key: tuple[str, ...]) -> None:
    found = compared(tmp_path, "SELECT * FROM (VALUES (1), (2)) AS t(k)", [{"k": 1}], key).difference
    assert found is not None
    assert (found.job, found.batch, dict(found.key)) == (None, {"k": 2}, {"k": 2})


@pytest.mark.parametrize("key", [(), ("k",)], ids=["multiset", "keyed"])
def test_a_doubled_row_is_found(tmp_path: Path, key: tuple[str, ...]) -> None:
    found = compared(tmp_path, "SELECT 1 AS k", [{"k": 1}, {"k": 1}], key).difference
    assert found is not None
    assert (found.job, found.batch) == ({"k": 1}, None)


def test_a_missing_number_in_an_epoch_is_found_even_where_the_rows_fit(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [{"k": 1, "_seq": 0}, {"k": 2, "_seq": 2}]
    found = compared(tmp_path, "SELECT * FROM (VALUES (1), (2)) AS t(k)", changes).difference
    assert found is not None
    assert "_seq 2" in found.what


def test_an_epoch_that_came_twice_and_cancels_out_is_found(tmp_path: Path) -> None:
    twice: list[dict[str, object]] = [
        {"k": 1, "_seq": 0},
        {"k": 1, "_op": "-D", "_seq": 1},
        {"k": 1, "_seq": 0},
        {"k": 1, "_op": "-D", "_seq": 1},
    ]
    assert compared(tmp_path, "SELECT 1 AS k LIMIT 0", twice).difference is not None


def test_a_retraction_of_what_is_not_there_is_found(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [{"k": 1, "_op": "-D"}, {"k": 1, "_epoch": 1}]
    found = compared(tmp_path, "SELECT 1 AS k LIMIT 0", changes).difference
    assert found is not None
    assert found.epoch == 0
    assert "not there" in found.what


def test_no_file_is_an_empty_view(tmp_path: Path) -> None:
    empty = compare_view(answer(tmp_path, "SELECT 1 AS k LIMIT 0"), "v", (), tmp_path / "none.jsonl")
    assert (empty.difference, empty.changes, empty.rows) == (None, 0, 0)


@pytest.mark.parametrize(("job", "differs"), [(0.3, False), (0.30000000000000004, False), (0.300001, True)])
def test_floats_are_close_at_a_billionth(tmp_path: Path, job: float, differs: bool) -> None:
    found = compared(tmp_path, "SELECT 'a' AS k, 0.3::DOUBLE AS x", [{"k": "a", "x": job}])
    assert (found.difference is not None) is differs


def test_close_floats_pair_once(tmp_path: Path) -> None:
    """Two rows of the job near one of the batch are one too many."""
    found = compared(tmp_path, "SELECT 0.3::DOUBLE AS x", [{"x": 0.3}, {"x": 0.30000000000000004}])
    assert found.difference is not None


TYPED = [
    ("9223372036854775807::HUGEINT * 4", 36893488147419103228, 36893488147419103227),
    ("1.50::DECIMAL(9,2)", "1.50", "1.51"),
    ("TIMESTAMP '2026-01-31 12:00:00.000001'", "2026-01-31T12:00:00.000001", "2026-01-31T12:00:00.000002"),
    ("DATE '2026-01-31'", "2026-01-31", "2026-01-30"),
    ("TIME '12:00:00.5'", "12:00:00.5", "12:00:00.6"),
    ("INTERVAL '-90 seconds'", "-PT90.000000S", "PT90.000000S"),
    ("'\\xFF'::BLOB", "/w==", "/g=="),
    ("[1, NULL, 3]", [1, None, 3], [1, 3]),
    ("{'a': 1.5::DOUBLE, 'b': [DATE '2026-01-31']}", {"a": 1.5, "b": ["2026-01-31"]}, {"a": 1.6, "b": ["2026-01-31"]}),
    ("[1.25::DECIMAL(9,2)]", ["1.25"], ["1.26"]),
    ("'NaN'::DOUBLE", None, 1.0),
    ("TRUE", True, False),
    ("'it''s'", "it's", "its"),
    ("NULL::VARCHAR", None, ""),
]


@pytest.mark.parametrize(("sql", "same", "other"), TYPED, ids=[t[0] for t in TYPED])
def test_values_of_each_type(tmp_path: Path, sql: str, same: object, other: object) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert compared(tmp_path / "a", f"SELECT {sql} AS x", [{"x": same}]).difference is None
    assert compared(tmp_path / "b", f"SELECT {sql} AS x", [{"x": other}]).difference is not None


def test_columns_may_be_called_anything(tmp_path: Path) -> None:
    row: dict[str, object] = {"n": 1, "held": 2, "order": 3, 'qu"ote': 4}
    select = 'SELECT 1 AS n, 2 AS held, 3 AS "order", 4 AS "qu""ote"'
    assert compared(tmp_path, select, [row]).difference is None


def test_close() -> None:
    assert close([1.0, {"a": 2.0}], [1.0 + 1e-12, {"a": 2.0}])
    assert not close([1.0], [1.0, 2.0])
    assert not close({"a": 1.0}, {"b": 1.0})
    assert not close(0.0, 1e-300)


_steps = st.lists(st.tuples(st.sampled_from(["+I", "-D", "+U", "-U"]), st.integers(0, 2), st.booleans()), max_size=9)


@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_steps, st.booleans(), st.integers(-1, 8))
def test_sets_find_what_following_change_by_change_finds(
    tmp_path: Path, steps: list[tuple[str, int, bool]], shuffled: bool, lost: int
) -> None:
    held: Counter[int] = Counter()
    below, epoch, seq = False, 0, 0
    records: list[dict[str, object]] = []
    for op, k, next_epoch in steps:
        epoch, seq = (epoch + 1, 0) if next_epoch else (epoch, seq)
        records.append({"k": k, "_op": op, "_epoch": epoch, "_seq": seq})
        seq += 1
        held[k] += 1 if op[0] == "+" else -1
        below = below or held[k] < 0
    # A record that is last in its epoch leaves no gap behind it: its loss shows in the rows alone.
    gap = lost + 1 < len(records) and lost >= 0 and records[lost + 1]["_epoch"] == records[lost]["_epoch"]
    given = [r for n, r in enumerate(records) if not (gap and n == lost)]
    if shuffled:
        given = given[::-1]
    rows = [k for k, n in held.items() for _ in range(max(n, 0))]
    file = tmp_path / "v.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in given))
    (tmp_path / "answer.duckdb").unlink(missing_ok=True)
    values = ", ".join(f"({k})" for k in rows)
    select = f"SELECT * FROM (VALUES {values}) AS t(k)" if rows else "SELECT 1 AS k LIMIT 0"
    found = compare_view(answer(tmp_path, select), "v", (), file).difference
    if gap:
        assert found is not None
        assert "out of place" in found.what
    elif below:
        assert found is not None
        assert "not there" in found.what
    else:
        assert found is None


def test_a_record_that_is_larger_than_usual_is_read(tmp_path: Path) -> None:
    text = "x" * (20 << 20)
    assert compared(tmp_path, f"SELECT repeat('x', {20 << 20}) AS s", [{"s": text}]).difference is None
