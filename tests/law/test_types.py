"""V1: every type that a column can have, through sources, state, keys, changes, Arrow and JSON, with NULLs inside."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from datetime import date, datetime, timedelta
from decimal import Context, Decimal

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.errors import DeclarationErrors
from penstock.formats.encode import Encoder
from penstock.runtime.session import Session

SQL = """
CREATE TABLE t (k BIGINT PRIMARY KEY, v {type});
CREATE STREAM s (v {type}, at TIMESTAMP NOT NULL, WATERMARK FOR at AS at - INTERVAL '0 seconds')
    WITH (retention = '10 seconds');
CREATE TABLE m (v {type});
CREATE VIEW per_value AS SELECT v, count(*) AS n FROM s GROUP BY v;
CREATE VIEW different AS SELECT DISTINCT v FROM t;
CREATE VIEW joined AS SELECT t.k, m.v FROM t JOIN m ON t.v = m.v;
CREATE VIEW same AS SELECT t.k, m.v FROM t JOIN m ON t.v IS NOT DISTINCT FROM m.v;
CREATE VIEW firsts AS SELECT v, min(k) AS k FROM t GROUP BY v;
CREATE VIEW bag AS SELECT v FROM m;
"""
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=3)


def _integers(bits: int, *, signed: bool = True) -> st.SearchStrategy[object]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.sampled_from([low, high, 0, 1]) | st.integers(low, high)


def _decimals(digits: int, places: int) -> st.SearchStrategy[object]:
    most = 10**digits - 1
    # All digits, however many: the usual context rounds to 28.
    return st.integers(-most, most).map(lambda n: Decimal(n).scaleb(-places, Context(prec=digits)))


# HUGEINT leaves as Arrow's decimal of 38 digits, which is less than its range.
HUGE = st.integers(-(10**38) + 1, 10**38 - 1)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0)
DATES = st.dates(date(1, 1, 1), date(9999, 12, 31))
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(2026, 1, 1)).map(lambda t: t.replace(fold=0))
SMALL = st.none() | st.integers(-2, 2)
TYPES: dict[str, st.SearchStrategy[object]] = {
    "TINYINT": _integers(8),
    "SMALLINT": _integers(16),
    "INTEGER": _integers(32),
    "BIGINT": _integers(64),
    "HUGEINT": HUGE,
    "UTINYINT": _integers(8, signed=False),
    "USMALLINT": _integers(16, signed=False),
    "UINTEGER": _integers(32, signed=False),
    "UBIGINT": _integers(64, signed=False),
    "FLOAT": FLOATS,
    "DOUBLE": FLOATS,
    "DECIMAL(4,2)": _decimals(4, 2),
    "DECIMAL(18,0)": _decimals(18, 0),
    "DECIMAL(38,10)": _decimals(38, 10),
    "BOOLEAN": st.booleans(),
    "VARCHAR": TEXT,
    "BLOB": st.binary(max_size=3),
    "UUID": st.integers(0, 2**128 - 1).map(lambda n: uuid.UUID(int=n)),
    "DATE": DATES,
    "TIME": st.times().map(lambda t: t.replace(fold=0)),
    "TIMESTAMP": MOMENTS,
    "INTERVAL": st.integers(-(10**12), 10**12).map(lambda n: timedelta(microseconds=n)),
    "ENUM('a', 'b')": st.sampled_from(["a", "b"]),
    "INTEGER[]": st.lists(SMALL, max_size=3),
    "VARCHAR[][]": st.lists(st.none() | st.lists(st.none() | TEXT, max_size=2), max_size=2),
    "STRUCT(a INTEGER, b VARCHAR)": st.fixed_dictionaries({"a": SMALL, "b": st.none() | TEXT}),
    "MAP(VARCHAR, INTEGER)": st.dictionaries(TEXT, SMALL, max_size=2),
    "STRUCT(a DECIMAL(9,2)[], b MAP(VARCHAR, DATE))[]": st.lists(
        st.none()
        | st.fixed_dictionaries(
            {
                "a": st.none() | st.lists(st.none() | _decimals(9, 2), max_size=2),
                "b": st.none() | st.dictionaries(TEXT, st.none() | DATES, max_size=2),
            }
        ),
        max_size=2,
    ),
}


def _shown(value: object) -> object:
    """A value as it comes back from Arrow."""
    match value:
        case uuid.UUID():
            return str(value)
        case list():
            return [_shown(v) for v in value]
        case dict() if set(value) in ({"a", "b"},) and not all(isinstance(v, int) or v is None for v in value.values()):
            return {name: _shown(v) for name, v in value.items()}
        case _:
            return value


def _rows(session: Session, view: str) -> Counter[str]:
    return Counter(repr(tuple(row.values())) for row in session.read(view).to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize("type", TYPES)
def test_v1_a_value_is_the_same_value_wherever_it_goes(type: str) -> None:
    values = st.lists(st.none() | TYPES[type], min_size=1, max_size=5)

    @settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
    @given(values, st.integers(0, 4))
    def holds(given: list[object], gone: int) -> None:
        with _pipeline(type).open() as session:
            _fill(session, given)
            assert session.dead_letters().num_rows == 0
            ident = {row["k"]: repr(row["v"]) for row in session.read("t").to_pylist()}
            plain = type.split("(")[0] not in ("MAP", "STRUCT", "INTERVAL", "UUID", "HUGEINT")
            if plain:
                assert list(ident.values()) == [repr(_shown(v)) for v in given]
            _agrees(session, ident)
            again = _changes(session)
            session.delete("t", [{"k": gone}])
            session.delete("m", [{"v": given[0]}])
            # What is older than the retention leaves by its value.
            session.insert("s", [{"v": given[0], "at": datetime(2026, 1, 1, 1)}])
            session.commit()
            assert session.dead_letters().num_rows == 0
            assert session.read("bag").num_rows == 2 * len(given) - 1
            assert _rows(session, "per_value") == Counter([f"({ident[0]}, 1)"])
            ident.pop(gone, None)
            assert Counter(repr(r["v"]) for r in session.read("t").to_pylist()) == Counter(ident.values())
            content = session.read("t")
        for rows in (content, again):
            _comes_back(type, rows)

    holds()


def _pipeline(type: str) -> ps.Pipeline:
    return ps.Pipeline.from_sql(SQL.replace("{type}", type), name="types")


def _fill(session: Session, values: list[object]) -> None:
    for k, value in enumerate(values):
        session.insert("t", [{"k": k, "v": value}])
        session.insert("s", [{"v": value, "at": datetime(2026, 1, 1)}])
        session.insert("m", [{"v": value}, {"v": value}])
        session.commit()


def _agrees(session: Session, ident: dict[int, str]) -> None:
    counts = Counter(ident.values())
    assert _rows(session, "per_value") == Counter(f"({v}, {n})" for v, n in counts.items())
    assert _rows(session, "different") == Counter(f"({v},)" for v in counts)
    firsts = {v: min(k for k, w in ident.items() if w == v) for v in counts}
    assert _rows(session, "firsts") == Counter(f"({v}, {k})" for v, k in firsts.items())
    pairs = Counter({f"({k}, {v})": 2 * counts[v] for k, v in ident.items()})
    assert _rows(session, "same") == pairs
    assert _rows(session, "joined") == Counter({p: n for p, n in pairs.items() if not p.endswith(", None)")})


def _changes(session: Session) -> list[dict[str, object]]:
    """The rows of `t` as the records of a sink."""
    rows = session.read("t").sort_by("k")
    names = {"_op": "+I", "_epoch": 0, "_seq": 0, "_correction": False}
    for name, value in names.items():
        rows = rows.append_column(name, pa.array([value] * len(rows)))
    encoder = Encoder("json", ())
    try:
        records = encoder.encode(rows).values.to_pylist()
    finally:
        encoder.close()
    return [{n: v for n, v in json.loads(r).items() if n not in names} for r in records]


def _comes_back(type: str, rows: pa.Table | list[dict[str, object]]) -> None:
    with _pipeline(type).open() as session:
        session.insert("t", rows)
        session.commit()
        assert session.dead_letters().num_rows == 0
        if isinstance(rows, pa.Table):
            assert _rows(session, "t") == Counter(repr(tuple(r.values())) for r in rows.to_pylist())
        else:
            assert session.read("t").num_rows == len(rows)
            assert _changes(session) == rows


@pytest.mark.parametrize(
    ("type", "hint"),
    [
        ("UHUGEINT", "HUGEINT"),
        ("TIMESTAMP_S", "TIMESTAMP"),
        ("TIMESTAMP_MS", "TIMESTAMP"),
        ("TIMESTAMP_NS", "TIMESTAMP"),
        ("TIMESTAMPTZ", "TIMESTAMP"),
        ("TIMETZ", "TIME"),
        ("INTEGER[3]", "INTEGER[]"),
        ("BIT", "BLOB"),
        ("JSON", "VARCHAR"),
        ("UNION(a INTEGER, b VARCHAR)", "STRUCT"),
        ("BIGNUM", "DECIMAL"),
        ("NUMBR", "docs/reference/types.md"),
    ],
)
def test_other_types_are_refused_where_they_are_declared(type: str, hint: str) -> None:
    with pytest.raises(DeclarationErrors) as problem:
        ps.Pipeline.from_sql(f"CREATE TABLE t (k BIGINT PRIMARY KEY,\n v {type});", name="types").graph()
    (error,) = problem.value.errors
    assert error.where is not None
    assert error.where.line == 2
    assert error.got == type
    assert hint in error.hint
