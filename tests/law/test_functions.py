"""B2: a Python function in views: the law, types, and what goes wrong in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.errors import DeclarationError, DeclarationErrors, RunError
from tests.examples import examples

SQL = (
    "CREATE TABLE t (k BIGINT PRIMARY KEY, a VARCHAR, n BIGINT); CREATE STREAM s (n BIGINT) WITH (state = 'unbounded');"
)


@ps.function
def fee(amount: int) -> int:
    return pc.add(pc.multiply(amount, 3), 1)  # type: ignore[return-value, call-overload]


@ps.function(arguments=["VARCHAR", "BIGINT"], returns="STRUCT(word VARCHAR, n BIGINT)[]")
def words(text: pa.Array, n: pa.Array) -> pa.Array:
    rows = zip(text.to_pylist(), n.to_pylist(), strict=True)
    made = [None if t is None else [{"word": w, "n": i} for w in t] for t, i in rows]
    return pa.array(made, pa.list_(pa.struct([("word", pa.string()), ("n", pa.int64())])))


VIEWS = {
    "flat": "SELECT k, fee(n) AS f FROM t WHERE fee(n) > 4",
    "grouped": "SELECT fee(n) AS f, count(*) AS c, sum(fee(k)) AS s FROM t GROUP BY fee(n)",
    "joined": "SELECT t.k, s.n FROM t JOIN s ON fee(t.n) = fee(s.n)",
    "nested": "SELECT k, words(a, n) AS w FROM t",
}


def _pipeline(views: dict[str, str]) -> ps.Pipeline:
    text = SQL + "".join(f"CREATE VIEW {n} WITH (state = 'unbounded') AS {v};" for n, v in views.items())
    pipeline = ps.Pipeline.from_sql(text, name="functions")
    pipeline.function(fee)
    pipeline.function(words)
    return pipeline


NUMBERS = st.none() | st.integers(-3, 3)
ROWS = st.lists(st.tuples(st.integers(0, 4), st.none() | st.text("ab", max_size=2), NUMBERS), max_size=4)


def _f(n: int | None) -> int | None:
    return None if n is None else 3 * n + 1


@settings(max_examples=examples(8), deadline=None)
@given(epochs=st.lists(st.tuples(ROWS, st.lists(NUMBERS, max_size=3)), min_size=1, max_size=4))
def test_b2_views_that_call_functions_keep_the_law(
    epochs: list[tuple[list[tuple[int, str | None, int | None]], list[int | None]]],
) -> None:
    table: dict[int, tuple[str | None, int | None]] = {}
    stream: list[int | None] = []
    with _pipeline(VIEWS).open() as session:
        for rows, numbers in epochs:
            for k, a, n in rows:
                table[k] = (a, n)
                session.insert("t", [{"k": k, "a": a, "n": n}])
            stream += numbers
            session.insert("s", [{"n": n} for n in numbers])
            session.commit()
            read = {v: Counter(map(repr, (tuple(r.values()) for r in session.read(v).to_pylist()))) for v in VIEWS}
            flat = [(k, _f(n)) for k, (_, n) in table.items() if n is not None and 3 * n + 1 > 4]
            assert read["flat"] == Counter(map(repr, flat))
            groups = Counter(_f(n) for _, n in table.values())
            assert sum(read["grouped"].values()) == len(groups)
            assert read["joined"] == Counter(
                repr((k, n)) for k, (_, m) in table.items() for n in stream if n == m is not None
            )
            nested = [(k, None if a is None else [{"word": w, "n": n} for w in a]) for k, (a, n) in table.items()]
            assert read["nested"] == Counter(map(repr, nested))


def _raises(amount: int) -> int:
    raise ValueError("no such amount")


def _short(amount: int) -> int:
    return pa.array([1], pa.int64())  # type: ignore[return-value]


def _text(amount: int) -> int:
    return pa.array(["x"] * len(amount))  # type: ignore[arg-type, return-value]


def _bare(amount: int) -> int:
    return 7


@pytest.mark.parametrize(
    ("body", "got"),
    [
        (_raises, "raised ValueError: no such amount"),
        (_short, "returned 1 values for 2 rows"),
        (_text, "returned string, and declares BIGINT"),
        (_bare, "returned int, not an Arrow array"),
    ],
)
def test_what_goes_wrong_in_a_function_names_it_and_its_view_and_leaves_the_state(body: object, got: str) -> None:
    pipeline = ps.Pipeline.from_sql(SQL + "CREATE VIEW v AS SELECT k, wrong(n) AS f FROM t;", name="functions")
    pipeline.function(ps.function(name="wrong")(body))  # type: ignore[arg-type]
    with pipeline.open() as session:
        session.insert("t", [{"k": 1, "n": 1}, {"k": 2, "n": 2}])
        with pytest.raises(RunError) as problem:
            session.commit()
        assert problem.value.code == "PS-RUN-002"
        assert "function wrong of view v" in problem.value.message
        assert got in problem.value.got
        assert session.read("t").num_rows == 0


def test_declarations_that_are_wrong() -> None:
    with pytest.raises(DeclarationError, match="types are not known"):
        ps.function(lambda a: a)
    with pytest.raises(DeclarationError, match="types are not known"):
        ps.function(arguments=["NUMBR"], returns="BIGINT")(lambda a: a)
    pipeline = ps.Pipeline("functions")
    pipeline.function(ps.function(name="abs")(_raises))
    with pytest.raises(DeclarationError, match="one of DuckDB's"):
        pipeline.open()
    pipeline.function(_raises)  # type: ignore[arg-type]
    with pytest.raises(DeclarationErrors, match=r"@ps\.function"):
        pipeline.graph()


def test_a_function_in_an_sql_file_is_named_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fees_of_mine.py").write_text(
        "import pyarrow.compute as pc\ndef double(n: int) -> int:\n    return pc.multiply(n, 2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "CREATE FUNCTION twice AS 'fees_of_mine:double'; CREATE VIEW v AS SELECT k, twice(n) AS m FROM t;"
    with ps.Pipeline.from_sql(SQL + text, name="functions").open() as session:
        session.insert("t", [{"k": 1, "n": 4}])
        session.commit()
        assert session.read("v").to_pylist() == [{"k": 1, "m": 8}]
    with pytest.raises(DeclarationErrors, match="cannot be found"):
        ps.Pipeline.from_sql(text.replace(":double", ""), name="functions").graph()
