"""Every mistake in a declaration: its code, its place, what was expected and got; all of them at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

import penstock as ps
from penstock.errors import DeclarationErrors, Error


class S(ps.Contract):
    k: int
    v: int | None
    word: str
    at: datetime


class T(ps.Contract):
    k: int
    name: str


def base(pipeline: ps.Pipeline) -> None:
    pipeline.stream("s", S, event_time="at", watermark="5 seconds")
    pipeline.table("t", T, key="k")


def mistakes(declare: Callable[[ps.Pipeline], None], *, state: Path | None = None) -> list[Error]:
    pipeline = ps.Pipeline("p")
    base(pipeline)
    declare(pipeline)
    with pytest.raises(Error) as problem:
        pipeline.open(state=state).close()
    error = problem.value
    return list(error.errors) if isinstance(error, DeclarationErrors) else [error]


@dataclass(frozen=True)
class Mistake:
    """A view that cannot be, its code, what the error names, and the place in its text (line, column; 0: the call)."""

    sql: str
    code: str
    says: str
    line: int = 0
    column: int = 0
    emit: str = "changes"

    def __str__(self) -> str:
        return self.sql.replace("\n", " ")[:60]


VIEWS = (
    Mistake("SELECT k FROM nowhere", "PS-DECL-003", "nowhere", 1, 15),
    Mistake("SELECT k\nFROM s\nJOIN nowhere ON TRUE", "PS-DECL-003", "nowhere", 3, 6),
    Mistake("SELECT missing FROM s", "PS-DECL-007", "missing", 1, 8),
    Mistake("SELECT k,\n       missing\nFROM s", "PS-DECL-007", "missing", 2, 8),
    Mistake("SELECT k\nFROM s\nWHERE wrong > 1", "PS-DECL-007", "wrong", 3, 7),
    Mistake("SELECT no_such_function(k) FROM s", "PS-DECL-007", "no_such_function", 1, 8),
    Mistake("SELECT word + at FROM s", "PS-DECL-007", "+(VARCHAR, TIMESTAMP)"),
    Mistake("SELECT sum(word) AS s FROM s", "PS-DECL-007", "sum"),
    Mistake("SELECT k, count(*) AS n FROM s", "PS-DECL-007", "GROUP BY"),
    Mistake("SELECT max(at) AS m, nope FROM s", "PS-DECL-007", "s has k, v, word, at", 1, 22),
    Mistake("SELECT sum(word) AS s FROM s", "PS-DECL-007", "cast what it is called with", 1, 8),
    Mistake("SELECT k FROM s\nUNION SELECT k, name FROM t", "PS-DECL-007", "UNION BY NAME", 2, 1),
    Mistake("SELECT k FROM s WHERE sum(v) > 1", "PS-DECL-007", "HAVING", 1, 23),
    Mistake("SELECT k FROM s WHERE row_number() OVER (ORDER BY k) = 1", "PS-DECL-007", "QUALIFY", 1, 23),
    Mistake("SELECT k FROM s WHERE k IN (SELECT k, name FROM t)", "PS-DECL-007", "one column"),
    Mistake("SELECT k, count(*) AS n FROM s\nGROUP BY 3", "PS-DECL-007", "GROUP BY ALL", 2, 1),
    Mistake("SELECT s.k AS a FROM s\nASOF JOIN t ON s.k = t.k", "PS-DECL-007", "add the time", 2, 1),
    Mistake("SELECT unnest(k) AS u FROM s", "PS-DECL-007", "unnest a list", 1, 8),
    Mistake("UNPIVOT s ON k, word", "PS-DECL-007", "one type"),
    Mistake("UNPIVOT s ON nope", "PS-DECL-007", "s has k, v, word, at", 1),
    Mistake("SELECT s.k AS a FROM s JOIN t ON k = 1", "PS-DECL-007", "the table before the column"),
    Mistake("SELECT k::NOTYPE AS x FROM s", "PS-DECL-007", "types.md"),
    Mistake(
        "SELECT count(*) AS n FROM s\nGROUP BY session(nope, INTERVAL 3 SECONDS)", "PS-DECL-007", "s has k, v", 2, 18
    ),
    Mistake("INSERT INTO s VALUES (1)", "PS-DECL-006", "a record of a source"),
    Mistake("SELECT k FROM s UNION ALL SELECT k, name FROM t", "PS-DECL-007", "number of result columns"),
    Mistake("SELEC k FROM s", "PS-DECL-006", ""),
    Mistake("SELECT k FROM\n  s WHERE (k = 1", "PS-DECL-006", ""),
    Mistake("SELECT 'open FROM s", "PS-DECL-006", ""),
    Mistake("SELECT k,\n  x'41' AS b FROM s", "PS-DECL-006", "::BLOB", 2, 4),
    Mistake("SELECT 3! AS f FROM s", "PS-DECL-006", "factorial(n)", 1, 9),
    Mistake("SELECT E'a'\n  'b' AS f FROM s", "PS-DECL-006", "||", 2, 3),
    Mistake("SELECT k FROM s WHERE word word2", "PS-DECL-006", "word2", 1, 28),
    Mistake("", "PS-DECL-006", ""),
    Mistake("SELECT k FROM s; SELECT v FROM s", "PS-DECL-006", "2 statements"),
    Mistake("DELETE FROM s", "PS-DECL-006", "DELETE"),
    Mistake("CREATE TABLE x AS SELECT 1 AS a", "PS-DECL-006", "CREATE"),
    Mistake("SELECT random() AS r FROM s", "PS-DECL-008", "random", 1, 8),
    Mistake("SELECT now() AS n FROM s", "PS-DECL-008", "clock"),
    Mistake("SELECT current_timestamp AS n FROM s", "PS-DECL-008", "clock"),
    Mistake("SELECT current_date AS n FROM s", "PS-DECL-008", "clock"),
    Mistake("SELECT uuid() AS n FROM s", "PS-DECL-008", "uuid"),
    Mistake("SELECT k\nFROM s\nWHERE random() < 1", "PS-DECL-008", "random", 3, 7),
    Mistake("SELECT k FROM s WHERE at > get_current_timestamp()", "PS-DECL-008", "clock"),
    Mistake("SELECT nextval('x') AS n FROM s", "PS-DECL-008", "nextval"),
    Mistake("SELECT k\nFROM s\nUSING SAMPLE 2 ROWS", "PS-DECL-008", "sample", 3, 7),
    Mistake("SELECT k FROM s\nTABLESAMPLE 10%", "PS-DECL-008", "sample", 2, 1),
    Mistake("SELECT k FROM s TABLESAMPLE reservoir(2)", "PS-DECL-008", "sample", 1, 17),
    Mistake("SELECT s.k, t.name FROM s\n  POSITIONAL JOIN t", "PS-DECL-008", "number the rows", 2, 3),
    Mistake("SELECT rowid AS r FROM t", "PS-DECL-008", "rowid", 1, 8),
    Mistake("SELECT k,\n t.rowid AS r FROM t", "PS-DECL-008", "rowid", 2, 4),
    Mistake("SELECT k FROM t WHERE rowid < 2", "PS-DECL-008", "rowid", 1, 23),
    Mistake("SELECT reservoir_quantile(v, 0.5) AS q FROM s", "PS-DECL-008", "reservoir_quantile", 1, 8),
    Mistake("SELECT json_group_array(v) AS q FROM s", "PS-DECL-008", "to_json(list(x ORDER BY x))", 1, 8),
    Mistake("SELECT age(at) AS a FROM s", "PS-DECL-008", "clock", 1, 8),
    Mistake("SELECT ago(INTERVAL '1 day') AS a FROM s", "PS-DECL-008", "clock", 1, 8),
    Mistake("SELECT localtimestamp AS a FROM s", "PS-DECL-008", "clock", 1, 8),
    Mistake("SELECT current_user AS a FROM s", "PS-DECL-008", "current_user", 1, 8),
    Mistake("SELECT version() AS a FROM s", "PS-DECL-008", "version", 1, 8),
    Mistake("SELECT current_setting('TimeZone') AS a FROM s", "PS-DECL-008", "current_setting", 1, 8),
    Mistake("SELECT fill(v) OVER (ORDER BY k) AS f FROM s", "PS-DECL-008", "lag and lead", 1, 8),
    Mistake(
        "SELECT sum(v) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW\nEXCLUDE TIES) AS f FROM s",
        "PS-DECL-008",
        "EXCLUDE CURRENT ROW",
        2,
        1,
    ),
    Mistake(
        "SELECT s.k, t.name FROM s ASOF JOIN t ON s.word || t.name = 'x' AND s.k >= t.k", "PS-DECL-008", "tie", 1, 27
    ),
    Mistake("PIVOT s ON word USING sum(v)", "PS-DECL-008", "name the values", 1, 1),
    Mistake("SELECT * FROM\n  (PIVOT s ON word USING sum(v))", "PS-DECL-008", "name the values", 2, 4),
    Mistake("PIVOT s ON word || 'x' IN ('ax') USING sum(v)", "PS-DECL-008", "parentheses", 1, 1),
    Mistake("SELECT * FROM (SUMMARIZE s)", "PS-DECL-008", "rows", 1, 16),
    Mistake("SELECT * FROM duckdb_settings()", "PS-DECL-003", "not declared", 1, 15),
    Mistake("SELECT * FROM query_table('s')", "PS-DECL-003", "not declared", 1, 15),
    Mistake("SELECT * FROM s,\n  glob('*')", "PS-DECL-003", "not declared", 2, 3),
    Mistake("SELECT * FROM '/etc/passwd'", "PS-DECL-003", "not declared", 1, 15),
    Mistake("SELECT k AS _op FROM s", "PS-DECL-001", "_op"),
    Mistake("SELECT k AS _ps_k FROM s", "PS-DECL-001", "_ps_k"),
    Mistake("SELECT k AS rowid FROM s", "PS-DECL-001", "rowid"),
    Mistake("SELECT k, v AS K FROM s", "PS-DECL-001", "K"),
    Mistake("SELECT s.k, t.k FROM s JOIN t ON s.k = t.k", "PS-DECL-001", "k"),
    Mistake("SELECT k FROM me", "PS-DECL-009", "me -> me"),
    Mistake("SELECT $window AS w FROM s", "PS-DECL-015", "$window", 1, 8),
    Mistake("SELECT k,\n  $window AS w\nFROM s", "PS-DECL-015", "$window", 2, 3),
    Mistake("SELECT k, count(*) AS n FROM s GROUP BY k", "PS-DECL-012", "window", emit="final"),
    Mistake("SELECT time_bucket(INTERVAL '1 minute', at) AS w, v FROM s", "PS-DECL-012", "window", emit="final"),
    Mistake(
        "SELECT hop(at, INTERVAL '2 seconds', INTERVAL '1 second') AS w, count(*) AS n FROM s GROUP BY 1",
        "PS-DECL-016",
        "hop(",
        1,
        8,
    ),
    Mistake(
        "SELECT count(*) AS n FROM s GROUP BY hop(at, INTERVAL '0 seconds', INTERVAL 1 SECOND)",
        "PS-DECL-016",
        "hop(",
        1,
        38,
    ),
    Mistake(
        "SELECT session(at, INTERVAL '2 seconds') AS w, count(*) AS n FROM s GROUP BY 1",
        "PS-DECL-016",
        "session(",
        1,
        8,
    ),
    Mistake("SELECT * FROM read_csv('/etc/passwd')", "PS-DECL-003", "not declared", 1, 15),
)


@pytest.mark.parametrize("mistake", VIEWS, ids=str)
def test_a_wrong_view(mistake: Mistake) -> None:
    pipeline = ps.Pipeline("p")
    base(pipeline)
    frame = inspect.currentframe()
    assert frame is not None
    line = frame.f_lineno + 1
    pipeline.view("me", mistake.sql, emit=mistake.emit)  # type: ignore[arg-type]
    with pytest.raises(Error) as problem:
        pipeline.open()
    (error,) = problem.value.errors if isinstance(problem.value, DeclarationErrors) else [problem.value]
    assert error.code == mistake.code or not mistake.code, error
    assert mistake.says.lower() in str(error).lower()
    assert "view" in str(error) or "parameter" in str(error)
    assert error.where is not None
    assert error.where.file == __file__
    assert error.where.line == line + max(mistake.line - 1, 0) or not mistake.line
    assert error.where.column == mistake.column or not mistake.column


DECLARATIONS: tuple[tuple[str, Callable[[ps.Pipeline], None], str, str], ...] = (
    ("a name twice", lambda p: p.view("t", "SELECT k FROM s"), "PS-DECL-002", "t"),
    ("a name that differs in case", lambda p: p.view("T", "SELECT k FROM s"), "PS-DECL-002", "T"),
    ("a bad name", lambda p: p.view("a-b", "SELECT k FROM s"), "PS-DECL-001", "a-b"),
    ("a duration", lambda p: p.stream("x", S, event_time="at", watermark="5 apples"), "PS-DECL-005", "apples"),
    ("watermark alone", lambda p: p.stream("x", S, watermark="5 seconds"), "PS-DECL-005", "event_time"),
    ("event time of another type", lambda p: p.stream("x", S, event_time="k"), "PS-DECL-005", "TIMESTAMP"),
    ("event time that is nowhere", lambda p: p.stream("x", S, event_time="nowhere"), "PS-DECL-005", "nowhere"),
    ("unknown key", lambda p: p.table("x", T, key="missing"), "PS-DECL-003", "missing"),
    ("version without key", lambda p: p.table("x", T, version="k"), "PS-DECL-005", "key"),
    ("unique alone", lambda p: p.stream("x", S, event_time="at", unique="k"), "PS-DECL-005", "within"),
    ("sink of nothing", lambda p: p.sink("out", view="nothing"), "PS-DECL-003", "nothing"),
    ("step over nothing", lambda p: _step(p, "nothing", "k"), "PS-DECL-003", "nothing"),
    ("step with an unknown key", lambda p: _step(p, "s", "missing"), "PS-DECL-003", "missing"),
    ("step without time", lambda p: _step(p, "t", "k"), "PS-DECL-005", "time"),
    ("unknown reference", lambda p: p.stream("x", S, references={"k": "nowhere.k"}), "PS-DECL-003", "nowhere"),
    ("emit", lambda p: p.view("x", "SELECT k FROM s", emit="sometimes"), "PS-DECL-005", "sometimes"),  # type: ignore[arg-type]
    ("strategy", lambda p: p.view("x", "SELECT k FROM s", strategy="fast"), "PS-DECL-005", "fast"),  # type: ignore[arg-type]
    ("state", lambda p: p.view("x", "SELECT k FROM s", state="huge"), "PS-DECL-005", "huge"),  # type: ignore[arg-type]
    ("on_error", lambda p: p.sink("out", view="s", on_error="ignore"), "PS-DECL-005", "ignore"),  # type: ignore[arg-type]
    ("key of a view", lambda p: p.view("x", "SELECT k FROM s", key="missing"), "PS-DECL-003", "missing"),
    ("check", lambda p: p.stream("x", S, checks=["k + 1"]), "PS-DECL-004", "BOOLEAN"),
    ("check over nothing", lambda p: p.stream("x", S, checks={"c": "nope > 1"}), "PS-DECL-004", "nope"),
)


def _step(pipeline: ps.Pipeline, input: str, key: str) -> None:
    pipeline.step("x", input=input, key=key, state=int, output=T, function=lambda s, c, t: ps.Step(s))


@pytest.mark.parametrize(("name", "declare", "code", "says"), DECLARATIONS, ids=[d[0] for d in DECLARATIONS])
def test_a_wrong_declaration(name: str, declare: Callable[[ps.Pipeline], None], code: str, says: str) -> None:
    (error,) = mistakes(declare)
    assert error.code == code
    assert says in str(error)
    assert error.where is not None
    assert error.where.file == __file__
    assert error.where.line > 0


def test_all_mistakes_come_at_once_and_in_the_order_of_the_file() -> None:
    def declare(pipeline: ps.Pipeline) -> None:
        pipeline.view("a", "SELECT missing FROM s")
        pipeline.view("b", "SELECT random() AS r FROM s")
        pipeline.view("c", "SELECT k FROM a")
        pipeline.view("d", "SELEC")
        pipeline.view("e", "SELECT k FROM f")
        pipeline.view("f", "SELECT k FROM e")
        pipeline.view("fine", "SELECT k FROM s")
        pipeline.view("g", "SELECT k FROM nowhere")

    found = mistakes(declare)
    assert [e.code for e in found] == [f"PS-DECL-00{n}" for n in (7, 8, 6, 9, 3)], "c is not blamed for a"
    lines = [e.where.line for e in found if e.where]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM s JOIN s AS o ON s.k = o.v",
        "SELECT k, max(word) AS w, count(DISTINCT v) AS n FROM s GROUP BY k",
        "SELECT k, median(v) AS m FROM s GROUP BY k",
    ],
)
def test_state_that_nothing_bounds_is_refused_on_disk_unless_acknowledged(sql: str, tmp_path: Path) -> None:
    sql = sql.replace("*", "s.k, o.v")
    (error,) = mistakes(lambda p: p.view("x", sql), state=tmp_path / "a")
    assert error.code == "PS-DECL-010"
    assert "unbounded" in error.hint
    pipeline = ps.Pipeline("p")
    base(pipeline)
    pipeline.view("x", sql, state="unbounded")
    pipeline.open(state=tmp_path / "b").close()


def test_only_views_that_read_the_rows_again_are_blamed_for_keeping_them(tmp_path: Path) -> None:
    def declare(p: ps.Pipeline) -> None:
        p.view("filtered", "SELECT k, v, at FROM s WHERE v > 0")
        p.view("blamed", "SELECT k, count(DISTINCT v) AS n FROM filtered GROUP BY k")
        p.view("after", "SELECT k, n FROM blamed ORDER BY n LIMIT 3")
        p.view("visits", "SELECT k, window_start, min(v) AS v FROM s GROUP BY session(at, INTERVAL 30 SECONDS), k")
        p.view("firsts", "SELECT DISTINCT ON (k) k, v FROM s ORDER BY k, v")

    (error,) = mistakes(declare, state=tmp_path)
    assert error.got == "blamed must keep every row of s"


def test_what_is_bounded_needs_no_word_on_disk(tmp_path: Path) -> None:
    pipeline = ps.Pipeline("p")
    base(pipeline)
    pipeline.view("a", "SELECT k, count(*) AS n, sum(v) AS s, min(v) AS m FROM s GROUP BY k")
    pipeline.view("b", "SELECT time_bucket(INTERVAL '1 minute', at) AS w, count(*) AS n FROM s GROUP BY 1")
    pipeline.view("c", "SELECT t.name, a.n FROM t LEFT JOIN a ON t.k = a.k")
    pipeline.view("d", "SELECT upper(word) AS w FROM s WHERE v > 1")
    pipeline.open(state=tmp_path).close()


def test_columns_of_a_view_in_an_sql_file_are_counted_in_the_file() -> None:
    text = (
        "CREATE TABLE t (k BIGINT PRIMARY KEY, name VARCHAR);\n\nCREATE VIEW v AS SELECT k,\n       missing FROM t;\n"
    )
    with pytest.raises(Error) as problem:
        ps.Pipeline.from_sql(text, name="p", file="p.sql").open()
    error = problem.value.errors[0] if isinstance(problem.value, DeclarationErrors) else problem.value
    assert error.where is not None
    assert (error.where.file, error.where.line, error.where.column) == ("p.sql", 4, 8)


def test_v1_a_decimal_without_digits_is_refused() -> None:
    class Money(ps.Contract):
        price: Decimal

    (error,) = mistakes(lambda p: p.stream("m", Money))
    assert "price" in str(error)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT age(at, at) AS a FROM s",
        "SELECT range AS n FROM range(3)",
        "SELECT s.k, u.unnest AS n FROM s, unnest([1, 2]) AS u",
        "SELECT s.k, j.value AS v FROM s, json_each(s.word::JSON) AS j",
        "SELECT rank() OVER (ORDER BY v) AS r, sum(v) OVER (ORDER BY k) AS t FROM s",
        "SELECT sum(v) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW) AS f FROM s",
    ],
)
def test_what_follows_from_the_rows_is_not_refused(sql: str) -> None:
    pipeline = ps.Pipeline("p")
    base(pipeline)
    pipeline.view("x", sql)
    pipeline.open().close()


SPELLINGS = (
    (r"E'it\'s\n\x41\101\t\\'", "it's\nAA\t\\"),
    ("e'at'", "at"),
    ("$$it's $k; -- at$$", "it's $k; -- at"),
    ("$tag$a $$ at$tag$", "a $$ at"),
    ("$$at$$", "at"),
    (r"'a\nb'", r"a\nb"),
    ("'$k'", "$k"),
    ("1_000", 1000),
    ("1_0.5_0::DOUBLE", 10.5),
    ("1_000e1_0", 1e13),
)


@pytest.mark.parametrize(("sql", "value"), SPELLINGS, ids=[s[0] for s in SPELLINGS])
@pytest.mark.parametrize("query", ["SELECT {} AS x, at FROM s", "SELECT {} AS x, at FROM s LIMIT 1", "{file}"])
def test_duckdb_spellings_of_strings_and_numbers_are_what_duckdb_makes_of_them(
    sql: str, value: object, query: str
) -> None:
    """As they are, written again by the planner, and in an SQL file; `at` and `$k` in a string are no column."""
    if query == "{file}":
        text = (
            "CREATE STREAM s (k BIGINT NOT NULL, v BIGINT, word VARCHAR NOT NULL, at TIMESTAMP NOT NULL, "
            "WATERMARK FOR at AS at - INTERVAL '5 seconds');\n"
            f"CREATE VIEW x AS SELECT {sql} AS x, at FROM s LIMIT 1;"
        )
        pipeline = ps.Pipeline.from_sql(text, name="p")
    else:
        pipeline = ps.Pipeline("p")
        base(pipeline)
        pipeline.view("x", query.format(sql))
    with pipeline.open() as session:
        session.insert("s", [{"k": 1, "v": 1, "word": "w", "at": datetime(2026, 1, 1)}])
        session.commit()
        assert session.read("x").to_pylist() == [{"x": value, "at": datetime(2026, 1, 1)}]
