"""Views written as Ibis expressions are those that the same SQL declares, and what is wrong in one names the view."""

from __future__ import annotations

import inspect
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import duckdb
import ibis
import pytest
from ibis import _

import penstock as ps
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import DeclarationError, DeclarationErrors, Error
from penstock.plan.blocks import RefreshBlock

START = datetime(2026, 1, 1)


class Click(ps.Contract):
    id: int
    user_id: int = ps.Field(ge=0)
    kind: str | None
    amount: Decimal = ps.Field(max_digits=12, decimal_places=2)
    at: datetime


class User(ps.Contract):
    user_id: int
    name: str


def declared() -> ps.Pipeline:
    pipeline = ps.Pipeline("shop")
    pipeline.table("clicks", Click, key="id")
    pipeline.table("users", User, key="user_id")
    return pipeline


def line() -> int:
    """The line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator, unused-ignore]
def fee(amount: int) -> int:
    """Known to Ibis by its name alone."""
    raise NotImplementedError


Expression = Callable[[Any, Any], Any]

CASES: dict[str, tuple[Expression, str]] = {
    "filter": (
        lambda c, u: c.filter(c.amount > 3, _.kind != "c"),
        "SELECT * FROM clicks WHERE amount > 3 AND kind != 'c'",
    ),
    "mutate": (
        lambda c, u: c.mutate(double=c.amount * 2, day=c.at.truncate("D"), known=c.kind.fill_null("$none")),
        "SELECT *, amount * 2 AS double, date_trunc('day', at) AS day, coalesce(kind, '$none') AS known FROM clicks",
    ),
    "group": (
        lambda c, u: c.group_by("kind").aggregate(n=_.count(), total=_.amount.sum(), most=_.amount.max()),
        "SELECT kind, count(*) AS n, sum(amount) AS total, max(amount) AS most FROM clicks GROUP BY kind",
    ),
    "having": (
        lambda c, u: c.group_by("kind").having(_.count() > 3).aggregate(users=_.user_id.nunique()),
        "SELECT kind, count(DISTINCT user_id) AS users FROM clicks GROUP BY kind HAVING count(*) > 3",
    ),
    "bucket": (
        lambda c, u: c.group_by(minute=c.at.bucket(minutes=1)).aggregate(n=_.count()),
        "SELECT time_bucket(INTERVAL '1 minute', at) AS minute, count(*) AS n FROM clicks GROUP BY 1",
    ),
    "nothing": (
        lambda c, u: c.aggregate(most=c.user_id.max(where=c.kind == "nothing")).fill_null(0),
        "SELECT coalesce(max(user_id) FILTER (WHERE kind = 'nothing'), 0) AS most FROM clicks",
    ),
    "join": (
        lambda c, u: c.join(u, "user_id").select("id", "name", "amount"),
        "SELECT c.id, u.name, c.amount FROM clicks c JOIN users u USING (user_id)",
    ),
    "left join": (
        lambda c, u: c.left_join(u, "user_id").select("id", "name"),
        "SELECT c.id, u.name FROM clicks c LEFT JOIN users u ON c.user_id = u.user_id",
    ),
    "self join": (
        lambda c, u: (lambda d: c.join(d, [c.user_id == d.user_id, c.id < d.id]).select(a=c.id, b=d.id))(c.view()),
        "SELECT c.id AS a, d.id AS b FROM clicks c JOIN clicks d ON c.user_id = d.user_id AND c.id < d.id",
    ),
    "window": (
        lambda c, u: c.mutate(
            before=_.amount.lag().over(group_by="user_id", order_by=["at", "id"]),
            share=_.amount.sum().over(group_by="user_id"),
        ).select("id", "before", "share"),
        "SELECT id, lag(amount) OVER (PARTITION BY user_id ORDER BY at, id) AS before,"
        " sum(amount) OVER (PARTITION BY user_id) AS share FROM clicks",
    ),
    "top of each": (
        lambda c, u: c.mutate(rank=ibis.row_number().over(group_by="kind", order_by=[_.amount.desc(), _.id])).filter(
            _.rank < 2
        ),
        "SELECT *, row_number() OVER (PARTITION BY kind ORDER BY amount DESC, id) - 1 AS rank FROM clicks"
        " QUALIFY rank < 2",
    ),
    "top": (
        lambda c, u: c.order_by(_.amount.desc(), _.id).limit(3),
        "SELECT * FROM clicks ORDER BY amount DESC, id LIMIT 3",
    ),
    "union": (
        lambda c, u: c.select("user_id").union(u.select("user_id")),
        "SELECT user_id FROM clicks UNION ALL SELECT user_id FROM users",
    ),
    "distinct union": (
        lambda c, u: c.select("user_id").union(u.select("user_id"), distinct=True),
        "SELECT user_id FROM clicks UNION SELECT user_id FROM users",
    ),
    "difference": (
        lambda c, u: u.select("user_id").difference(c.select("user_id")),
        "SELECT user_id FROM users EXCEPT SELECT user_id FROM clicks",
    ),
    "is in": (
        lambda c, u: c.filter(c.user_id.isin(u.filter(u.name != "n1").user_id)),
        "SELECT * FROM clicks WHERE user_id IN (SELECT user_id FROM users WHERE name != 'n1')",
    ),
    "anti join": (
        lambda c, u: c.anti_join(u, "user_id"),
        "SELECT * FROM clicks c WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.user_id = c.user_id)",
    ),
    "scalar": (
        lambda c, u: c.filter(c.amount > c.amount.mean().as_scalar()),
        "SELECT * FROM clicks WHERE amount > (SELECT avg(amount) FROM clicks)",
    ),
    "text over lines": (
        lambda c, u: c.select("id", note=ibis.literal("it's\n$5")),
        "SELECT id, 'it''s\n$5' AS note FROM clicks",
    ),
}


def epochs(seed: int) -> list[tuple[dict[int, dict[str, object]], list[int], dict[int, dict[str, object]], list[int]]]:
    """Clicks that come and go, and users that come and go, one entry an epoch."""
    chance = random.Random(seed)
    found = []
    for _epoch in range(6):
        clicks = {
            number: {
                "id": number,
                "user_id": chance.randrange(4),
                "kind": chance.choice(["a", "b", "c", None]),
                "amount": Decimal(chance.randrange(800)) / 100,
                "at": START + timedelta(seconds=chance.randrange(200)),
            }
            for number in chance.sample(range(20), 6)
        }
        users = {n: {"user_id": n, "name": f"n{chance.randrange(3)}"} for n in chance.sample(range(5), 2)}
        gone = [number for number in chance.sample(range(20), 4) if number not in clicks]
        found.append((clicks, gone, users, [n for n in chance.sample(range(5), 1) if n not in users]))
    return found


def rows(table: Any) -> list[str]:
    return sorted(repr(row) for row in table.to_pylist())


def test_expressions_give_what_the_same_sql_gives() -> None:
    pipeline = declared()
    clicks, users = pipeline.ibis("clicks"), pipeline.ibis("users")
    names = [(case.replace(" ", "_") + "_ibis", case.replace(" ", "_") + "_sql") for case in CASES]
    for (ours, theirs), (expression, sql) in zip(names, CASES.values(), strict=True):
        pipeline.view(ours, expression(clicks, users))
        pipeline.view(theirs, sql)
    seen: dict[str, set[str]] = {ours: set() for ours, _theirs in names}
    live: dict[str, set[int]] = {"clicks": set(), "users": set()}
    with pipeline.open() as session:
        for came, gone, joined, left in epochs(seed=7):
            session.insert("clicks", list(came.values()))
            session.insert("users", list(joined.values()))
            session.delete("clicks", [{"id": n} for n in gone if n in live["clicks"]])
            session.delete("users", [{"user_id": n} for n in left if n in live["users"]])
            live["clicks"] = live["clicks"] - set(gone) | set(came)
            live["users"] = live["users"] - set(left) | set(joined)
            session.commit()
            for ours, theirs in names:
                got, expected = session.read(ours), session.read(theirs)
                assert rows(got) == rows(expected), ours
                assert got.schema.names == expected.schema.names, ours
                seen[ours].add(repr(rows(got)))
    unmoved = [view for view, contents in seen.items() if len(contents) < 2]
    assert unmoved == ["nothing_ibis"], "a view that never changes shows nothing"


def test_expressions_are_kept_up_without_a_refresh() -> None:
    pipeline = declared()
    for number, (expression, _sql) in enumerate(CASES.values()):
        pipeline.view(f"v{number}", expression(pipeline.ibis("clicks"), pipeline.ibis("users")))
    plan = compile_for_duckdb(pipeline.graph(), in_memory=True)
    assert not [node.name for node in plan.nodes if isinstance(node.block, RefreshBlock)]


def test_views_over_views_of_both_kinds() -> None:
    pipeline = declared()
    clicks = pipeline.ibis("clicks")
    pipeline.view("per_user", clicks.group_by("user_id").aggregate(n=_.count(), total=_.user_id.sum()))
    pipeline.view("often", "SELECT user_id, n FROM per_user WHERE n > 1")
    often = pipeline.ibis("often")
    pipeline.view("named", often.join(pipeline.ibis("users"), "user_id").select("name", "n"))
    pipeline.view("most", "SELECT max(n) AS n FROM named")
    with pipeline.open() as session:
        session.insert("users", [{"user_id": 1, "name": "Ada"}])
        click = {"kind": "a", "amount": Decimal(1), "at": START}
        session.insert("clicks", [{"id": n, "user_id": n % 2, **click} for n in range(5)])
        session.commit()
        assert session.read("named").to_pylist() == [{"name": "Ada", "n": 2}]
        session.delete("clicks", [{"id": 1}])
        session.commit()
        assert session.read("named").to_pylist() == []
        assert session.read("most").to_pylist() == [{"n": None}]


def test_the_types_are_those_of_the_contract_and_of_the_engine() -> None:
    class Everything(ps.Contract):
        small: Annotated[int, ps.SqlType("UTINYINT")]
        huge: Annotated[int, ps.SqlType("HUGEINT")]
        ratio: float
        price: Decimal = ps.Field(max_digits=18, decimal_places=4)
        tags: list[str]
        counts: dict[str, int]

    pipeline = declared()
    pipeline.stream("everything", Everything)
    assert {name: str(kind) for name, kind in pipeline.ibis("everything").schema().items()} == {
        "small": "uint8",
        "huge": "decimal(38, 0)",
        "ratio": "float64",
        "price": "decimal(18, 4)",
        "tags": "array<string>",
        "counts": "map<string, int64>",
    }
    pipeline.view("sums", "SELECT kind, sum(amount) AS total, avg(amount) AS mean FROM clicks GROUP BY kind")
    assert [str(kind) for kind in pipeline.ibis("sums").schema().types] == ["string", "decimal(38, 2)", "float64"]


def test_no_column_is_told_as_one_that_cannot_be_null() -> None:
    """Else Ibis leaves out a `fill_null` over a maximum of no rows."""
    pipeline = declared()
    assert all(kind.nullable for kind in pipeline.ibis("clicks").schema().types)
    closed = ibis.table({"user_id": "!int64", "kind": "string"}, name="clicks")
    filled = closed.aggregate(most=closed.user_id.max(where=closed.kind == "x")).fill_null(0)
    assert "COALESCE" not in ibis.to_sql(filled, dialect="duckdb"), "Ibis has learned it: tell it what contracts say"


def test_a_window_of_event_time_closes() -> None:
    pipeline = ps.Pipeline("closing")
    pipeline.stream("clicks", Click, event_time="at", watermark="2 seconds")
    clicks = pipeline.ibis("clicks")
    pipeline.view("closed", clicks.group_by(w=clicks.at.bucket(seconds=10)).aggregate(n=_.count()), emit="final")
    with pipeline.open() as session:
        click = {"user_id": 1, "kind": "a", "amount": Decimal(1)}
        session.insert("clicks", [{"id": n, "at": START + timedelta(seconds=n), **click} for n in range(9)])
        session.commit()
        assert session.read("closed").num_rows == 0
        session.advance("clicks", START + timedelta(seconds=10))
        session.commit()
        assert session.read("closed").to_pylist() == [{"w": START, "n": 9}]


def test_a_function_of_the_pipeline_is_called_by_name() -> None:
    import pyarrow.compute as pc

    pipeline = declared()
    pipeline.function(
        ps.function(lambda amount: pc.divide(amount, 2), name="fee", arguments=["BIGINT"], returns="BIGINT")
    )
    users = pipeline.ibis("users")
    pipeline.view("fees", users.select("name", fee=fee(users.user_id)))
    with pipeline.open() as session:
        session.insert("users", [{"user_id": 7, "name": "Ada"}])
        session.commit()
        assert session.read("fees").to_pylist() == [{"name": "Ada", "fee": 3}]


@ibis.udf.scalar.python  # type: ignore[untyped-decorator, unused-ignore]
def doubled(x: int) -> int:
    return 2 * x


WRONG: dict[str, tuple[Expression, str, str]] = {
    "another table": (lambda c, u: ibis.table({"a": "int64"}, name="orders"), "PS-DECL-003", "orders"),
    "a table not asked for": (
        lambda c, u: c.join(ibis.table({"user_id": "int64"}, name="visits"), "user_id"),
        "PS-DECL-003",
        'hint: pipeline.ibis("visits")',
    ),
    "other columns": (lambda c, u: ibis.table({"user_id": "string"}, name="users"), "PS-DECL-003", "users"),
    "in a subquery": (
        lambda c, u: c.filter(c.user_id.isin(ibis.table({"a": "int64"}, name="orders").a)),
        "PS-DECL-003",
        "orders",
    ),
    "a parameter": (lambda c, u: c.filter(c.user_id > ibis.param("int64")), "PS-DECL-017", "as $name"),
    "a Python function": (lambda c, u: u.mutate(x=doubled(u.user_id)), "PS-DECL-017", "doubled, a function of Ibis"),
    "a column": (lambda c, u: c.amount.sum(), "PS-DECL-017", ".as_table()"),
    "nothing of Ibis": (lambda c, u: 7, "PS-DECL-017", "got: int"),
    "chance": (lambda c, u: u.mutate(x=ibis.random()), "PS-DECL-008", "random"),
    "now": (lambda c, u: c.filter(c.at > ibis.now()), "PS-DECL-008", "clock"),
    "what Ibis cannot write": (lambda c, u: u.mutate(x=u.name.hashbytes("sha512")), "PS-DECL-017", "HashBytes"),
    "what DuckDB has not": (lambda c, u: u.mutate(x=fee(u.user_id)), "PS-DECL-007", "fee"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_names_view_file_and_line(case: str) -> None:
    expression, code, text = WRONG[case]
    pipeline = declared()
    clicks, users = pipeline.ibis("clicks"), pipeline.ibis("users")
    pipeline.view("strange", expression(clicks, users))
    here = line() - 1
    with pytest.raises(DeclarationErrors) as caught:
        pipeline.open()
    (error,) = caught.value.errors
    assert error.code == code
    assert text.lower() in str(error).lower()
    assert "strange" in error.message
    assert error.where is not None
    assert (error.where.file, error.where.line, error.where.column) == (__file__, here, 0)


def test_rows_that_are_held_by_an_expression_are_no_source() -> None:
    """As those of a table of a database, or of a DataFrame."""
    import ibis.expr.operations as ops
    from ibis.expr.schema import Schema

    pipeline = declared()
    held = ops.DatabaseTable("users", Schema({"user_id": "int64", "name": "string"}), source=None).to_expr()
    pipeline.view("strange", held)
    with pytest.raises(DeclarationErrors, match=r"users, which holds rows of its own"):
        pipeline.graph()


def test_a_step_is_a_table_too() -> None:
    class Seen(ps.Contract):
        user_id: int
        seen: int

    @dataclass
    class Count:
        n: int = 0

    def count(state: Count | None, changes: list[ps.Change], timers: list[ps.Timer]) -> ps.Step:
        n = (state.n if state else 0) + len(changes)
        return ps.Step(Count(n), [{"user_id": changes[0].row["user_id"], "seen": n}])

    pipeline = ps.Pipeline("seen")
    pipeline.stream("clicks", Click, event_time="at", watermark="2 seconds")
    pipeline.step("seen", input="clicks", key="user_id", state=Count, output=Seen, function=count)
    seen = pipeline.ibis("seen")
    pipeline.view("most", seen.aggregate(most=seen.seen.max()))
    assert list(pipeline.ibis("most").schema()) == ["most"]


def test_mistakes_come_with_those_of_other_views() -> None:
    pipeline = declared()
    pipeline.view("one", ibis.table({"a": "int64"}, name="orders"))
    pipeline.view("two", "SELECT nothing FROM clicks")
    with pytest.raises(DeclarationErrors) as caught:
        pipeline.open()
    assert [error.code for error in caught.value.errors] == ["PS-DECL-003", "PS-DECL-007"]


def test_a_table_of_what_is_not_declared() -> None:
    pipeline = declared()
    with pytest.raises(DeclarationError, match="the Ibis table visits is not declared") as caught:
        pipeline.ibis("visits")
    assert (caught.value.code, caught.value.expected) == ("PS-DECL-003", "clicks, users")
    assert caught.value.where is not None
    assert caught.value.where.file == __file__


def test_a_table_of_what_is_declared_wrongly_tells_why() -> None:
    pipeline = declared()
    pipeline.stream("visits", User, watermark="soon")
    pipeline.stream("9", User)
    with pytest.raises(DeclarationErrors) as caught:
        pipeline.ibis("9")
    assert [error.code for error in caught.value.errors] == ["PS-DECL-005", "PS-DECL-001", "PS-DECL-003"]


def test_a_table_of_a_view_needs_that_view_alone_to_be_right() -> None:
    pipeline = declared()
    pipeline.view("early", "SELECT * FROM later")
    pipeline.sink("out", view="later")
    pipeline.view("wrong", "SELECT nothing FROM clicks")
    pipeline.view("over_wrong", "SELECT * FROM wrong")
    pipeline.view("right", "SELECT name FROM users")
    assert list(pipeline.ibis("right").schema()) == ["name"]
    with pytest.raises(Error, match="nothing"):
        pipeline.ibis("over_wrong")


def test_without_ibis_the_error_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['ibis'] = None\n"
        "import penstock as ps\n"
        "class User(ps.Contract):\n"
        "    name: str\n"
        "pipeline = ps.Pipeline('shop')\n"
        "pipeline.stream('users', User)\n"
        "pipeline.view('names', 'SELECT name FROM users')\n"
        "pipeline.view('strange', 7)\n"
        "try:\n"
        "    pipeline.ibis('users')\n"
        "except ps.DeclarationError as error:\n"
        "    print(error.code, error.hint)\n"
        "try:\n"
        "    pipeline.graph()\n"
        "except ps.DeclarationErrors as error:\n"
        "    print([e.code for e in error.errors])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["PS-DECL-018 pip install 'penstock[ibis]'", "['PS-DECL-017']"]


def test_pipelines_in_sql_load_no_ibis() -> None:
    code = (
        "import sys, penstock as ps\n"
        "class User(ps.Contract):\n"
        "    name: str\n"
        "pipeline = ps.Pipeline('shop')\n"
        "pipeline.stream('users', User)\n"
        "pipeline.view('names', 'SELECT name FROM users')\n"
        "pipeline.open().close()\n"
        "print('ibis' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_ibis_opens_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("authoring connects to nothing")

    pipeline = declared()
    monkeypatch.setattr(duckdb, "connect", refused)
    pipeline.view("names", pipeline.ibis("users").select("name"))
    assert pipeline.graph().views[0].sql.startswith("SELECT")
    assert "ibis.backends.duckdb" not in sys.modules
