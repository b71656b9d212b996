"""Random queries over random sources: the grammar of what is kept up incrementally, nested up to three deep.

Every query is definite up to ties, which the planner breaks (V4). An average is shown and never compared: its last
digit depends on the order of additions (V3). `features` says what a query consists of, for the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st

from tests.law.random_world import TYPES, Source, Tag

T = TypeVar("T")
LITERALS: dict[Tag, tuple[str, ...]] = {
    "I": ("0", "1", "2"),
    "N": ("0.00::DECIMAL(9,2)", "1.50::DECIMAL(9,2)"),
    "T": ("'x'", "'y'", "''"),
    "B": ("TRUE", "FALSE"),
    "F": ("0.5::DOUBLE", "3.0::DOUBLE"),
    "D": ("DATE '2026-01-31'",),
    "S": ("TIMESTAMP '2026-01-01 00:00:07'",),
    "L": ("[1]::BIGINT[]",),
}
# Over an expression of the type itself.
FUNCTIONS: dict[Tag, tuple[str, ...]] = {
    "I": ("({0} + 1)", "abs({0})", "coalesce({0}, -7)", "CASE WHEN {0} > 0 THEN {0} END", "({0} % 2)"),
    "N": ("({0} + 1)", "coalesce({0}, 9.75)", "({0} * 2)"),
    "T": ("upper({0})", "({0} || '!')", "coalesce({0}, 'none')", "nullif({0}, 'x')"),
    "B": ("(NOT {0})", "coalesce({0}, FALSE)"),
    "F": ("({0} * 2)", "coalesce({0}, 0.25)"),
    "D": ("date_trunc('month', {0})::DATE", "({0} + 1)"),
    "S": ("date_trunc('day', {0})", "({0} + INTERVAL 7 SECONDS)"),
    "L": ("list_sort({0})",),
}
JOINS = ("JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN", "CROSS JOIN")
# What is known to be recomputed: a window over all rows that looks ahead, or follows an order of lists.
RECOMPUTED = "window over all rows, ahead"
SETS = ("UNION ALL", "UNION", "EXCEPT", "EXCEPT ALL", "INTERSECT", "INTERSECT ALL")


@dataclass(frozen=True)
class Column:
    """A column that an expression may name. exact: it may be compared."""

    sql: str
    tag: Tag
    exact: bool = True


@dataclass(frozen=True)
class Relation:
    """A source, a CTE or a query, with the columns it gives."""

    sql: str
    columns: tuple[Column, ...]


class Writer:
    """Writes one query, drawing every choice."""

    def __init__(self, draw: st.DrawFn, declared: Sequence[Source]) -> None:
        self._draw = draw
        self._names = 0
        self._bases = [Relation(s.name, tuple(Column(n, t) for n, t in s.columns)) for s in declared]
        self.features: set[str] = set()

    def _one(self, *choices: T) -> T:
        return self._draw(st.sampled_from(choices))

    def _sometimes(self, of: int = 3) -> bool:
        return self._draw(st.integers(0, of - 1)) == of - 1

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    # -- queries -------------------------------------------------------------------------------------------------------

    def query(self, depth: int) -> Relation:
        shapes = ["flat", "group"]
        if depth:
            shapes += ["flat", "group", "distinct", "set", "window", "limit", "cte", "global", "top"]
        match self._one(*shapes):
            case "flat":
                return self._flat(depth)
            case "distinct":
                self.features.add("distinct")
                return self._flat(depth, "DISTINCT ", exact=True)
            case "group":
                return self._group(depth, keys=self._draw(st.integers(1, 2)))
            case "global":
                return self._group(depth, keys=0)
            case "set":
                return self._set(depth)
            case "window":
                return self._window(depth)
            case "top":
                return self._top(depth)
            case "limit":
                return self._limit(depth)
            case _:
                return self._cte(depth)

    def _flat(self, depth: int, word: str = "", *, exact: bool = False) -> Relation:
        from_, columns = self._from(depth)
        if exact:
            columns = [c for c in columns if c.exact]
        chosen = [self._expression(self._one(*columns)) for _ in range(self._draw(st.integers(1, 4)))]
        return self._select(word, chosen, f"FROM {from_}{self._where(columns, depth)}")

    def _select(self, word: str, chosen: Sequence[Column], rest: str) -> Relation:
        named = [(c, self._name("c")) for c in chosen]
        items = ", ".join(f"{c.sql} AS {name}" for c, name in named)
        return Relation(f"SELECT {word}{items} {rest}", tuple(Column(n, c.tag, c.exact) for c, n in named))

    def _group(self, depth: int, *, keys: int) -> Relation:
        self.features.add("group" if keys else "global group")
        from_, columns = self._from(depth)
        usable = [c for c in columns if c.exact]
        by = [self._expression(self._one(*usable)) for _ in range(keys)]
        results = [self._aggregate(usable, depth) for _ in range(self._draw(st.integers(1, 3)))]
        rest = f"FROM {from_}{self._where(columns, depth)}"
        if by:
            rest += f" GROUP BY {', '.join(c.sql for c in by)}"
        if self._sometimes(4):
            self.features.add("having")
            rest += f" HAVING {self._one('count(*) > 1', 'count(*) < 3', *(r.sql + ' IS NOT NULL' for r in results))}"
        shown = by if self._sometimes(6) is False else by[1:]
        return self._select("", [*shown, *results], rest)

    def _aggregate(self, columns: Sequence[Column], depth: int) -> Column:
        column = self._expression(self._one(*columns))
        x = column.sql
        choices = [Column("count(*)", "I"), Column(f"count({x})", "I"), Column(f"count(DISTINCT {x})", "I")]
        if column.tag in "INF":
            choices += [Column(f"sum({x})", column.tag), Column(f"avg({x})", "F", False)]
            choices += [Column(f"sum(DISTINCT {x})", column.tag)]
        if column.tag != "L":
            choices += [Column(f"min({x})", column.tag), Column(f"max({x})", column.tag)]
        if column.tag == "I":
            choices += [Column(f"median({x})", "F"), Column(f"list({x} ORDER BY {x})", "L")]
        if column.tag == "T":
            choices.append(Column(f"string_agg({x}, ',' ORDER BY {x})", "T"))
        if column.tag == "B":
            choices += [Column(f"{f}({x})", "B") for f in ("bool_and", "bool_or")]
            choices.append(Column(f"count_if({x})", "I"))
        chosen = self._one(*choices)
        self.features.add(chosen.sql.split("(")[0] + (" distinct" if "DISTINCT" in chosen.sql else ""))
        if self._sometimes(5):
            self.features.add("filter clause")
            return Column(f"{chosen.sql} FILTER (WHERE {self._comparison(columns)})", chosen.tag, chosen.exact)
        return chosen

    def _set(self, depth: int) -> Relation:
        left = self._flat(depth - 1, exact=True)
        from_, columns = self._from(depth - 1)
        chosen = [self._of(c.tag, columns) for c in left.columns]
        right = self._select("", chosen, f"FROM {from_}{self._where(columns, depth - 1)}")
        word = self._one(*SETS)
        self.features.add(word.lower())
        return Relation(f"({left.sql}) {word} ({right.sql})", left.columns)

    def _cte(self, depth: int) -> Relation:
        self.features.add("cte")
        name = self._name("w")
        inner = self.query(depth - 1)
        self._bases.append(Relation(name, inner.columns))
        outer = self.query(depth - 1)
        self._bases.pop()
        return Relation(f"WITH {name} AS ({inner.sql}) {outer.sql}", outer.columns)

    def _limit(self, depth: int) -> Relation:
        self.features.add("limit")
        inner = self._flat(depth - 1, exact=True)
        way = self._one("", " DESC")
        offset = self._one("", "", " OFFSET 1")
        return Relation(
            f"{inner.sql} ORDER BY {inner.columns[0].sql}{way} LIMIT {self._one(1, 2, 3)}{offset}", inner.columns
        )

    def _over(self, columns: Sequence[Column], *, ahead: bool = False) -> str:
        partition = f"PARTITION BY {self._one(*columns).sql} " if self._sometimes(2) else ""
        order = self._one(*columns)
        if not partition and (ahead or order.tag == "L"):
            self.features.add(RECOMPUTED)
        return f"({partition}ORDER BY {order.sql}{self._one('', ' DESC')})"

    def _window(self, depth: int) -> Relation:
        self.features.add("window")
        from_, columns = self._from(depth)
        usable = [c for c in columns if c.exact]
        of = self._one(*usable)
        choices = [Column(f"{f}()", "I") for f in ("row_number", "rank", "dense_rank")]
        choices += [Column(f"{f}({of.sql})", of.tag) for f in ("lag", "lead", "first_value")]
        choices.append(Column(f"count({of.sql})", "I"))
        if of.tag in "INF":
            choices.append(Column(f"sum({of.sql})", of.tag))
        function = self._one(*choices)
        shown = [self._one(*usable) for _ in range(self._draw(st.integers(1, 2)))]
        over = self._over(usable, ahead=function.sql.startswith("lead"))
        result = Column(f"{function.sql} OVER {over}", function.tag)
        return self._select("", [*shown, result], f"FROM {from_}{self._where(columns, 0)}")

    def _top(self, depth: int) -> Relation:
        """The first rows of each partition, by QUALIFY or around a subquery."""
        self.features.add("top of partition")
        from_, columns = self._from(depth)
        usable = [c for c in columns if c.exact]
        rank = f"{self._one('row_number', 'rank')}() OVER {self._over(usable)}"
        shown = [self._one(*usable) for _ in range(self._draw(st.integers(1, 2)))]
        rest = f"FROM {from_}{self._where(columns, 0)}"
        if self._sometimes(2):
            return self._select("", shown, f"{rest} QUALIFY {rank} <= {self._one(1, 2)}")
        inner = self._select("", [*shown, Column(rank, "I")], rest)
        *kept, place = inner.columns
        alias = self._name("a")
        return self._select(
            "",
            [Column(f"{alias}.{c.sql}", c.tag) for c in kept],
            f"FROM ({inner.sql}) AS {alias} WHERE {place.sql} <= 2",
        )

    # -- FROM and WHERE ------------------------------------------------------------------------------------------------

    def _item(self, depth: int) -> tuple[str, list[Column]]:
        alias = self._name("a")
        relation = self.query(depth - 1) if depth and self._sometimes() else self._one(*self._bases)
        is_base = relation in self._bases
        sql = f"{relation.sql} AS {alias}" if is_base else f"({relation.sql}) AS {alias}"
        return sql, [Column(f"{alias}.{c.sql}", c.tag, c.exact) for c in relation.columns]

    def _from(self, depth: int) -> tuple[str, list[Column]]:
        """A FROM clause; at least one of its columns can be compared."""
        sql, columns = self._item(depth)
        if not any(c.exact for c in columns):
            base = self._bases[0]
            alias = self._name("a")
            sql, columns = f"{base.sql} AS {alias}", [Column(f"{alias}.{c.sql}", c.tag) for c in base.columns]
        for _ in range(self._one(0, 0, 0, 1, 1, 2)):
            right, theirs = self._item(depth - 1 if depth else 0)
            word = self._one(*JOINS)
            self.features.add(word.lower())
            condition = "" if word == "CROSS JOIN" else f" ON {self._join_condition(columns, theirs)}"
            sql += f" {word} {right}{condition}"
            if word not in ("SEMI JOIN", "ANTI JOIN"):
                columns = [*columns, *theirs]
        return sql, columns

    def _join_condition(self, left: Sequence[Column], right: Sequence[Column]) -> str:
        pairs = [(a, b) for a in left for b in right if a.tag == b.tag and a.exact and b.exact]
        if not pairs:
            return "TRUE"
        a, b = self._one(*pairs)
        found = f"{a.sql} {self._one('=', '=', '=', 'IS NOT DISTINCT FROM', '<')} {b.sql}"
        if self._sometimes():
            a, b = self._one(*pairs)
            found += f" AND {a.sql} {self._one('=', '<>', '<=')} {b.sql}"
        if self._sometimes(4):
            found += f" AND {self._comparison([*left, *right])}"
        return found

    def _where(self, columns: Sequence[Column], depth: int) -> str:
        if self._sometimes(2):
            return ""
        return f" WHERE {self._predicate(columns, depth)}"

    def _predicate(self, columns: Sequence[Column], depth: int) -> str:
        shape = self._one("plain", "plain", "and", "or", "in", "exists", "scalar") if depth else "plain"
        match shape:
            case "plain":
                return self._comparison(columns)
            case "and" | "or":
                return f"({self._predicate(columns, depth - 1)} {shape.upper()} {self._predicate(columns, depth - 1)})"
            case "in":
                return self._in(columns, depth)
            case "exists":
                return self._exists(columns)
            case _:
                return self._scalar(columns)

    def _comparison(self, columns: Sequence[Column]) -> str:
        column = self._one(*[c for c in columns if c.exact])
        same = [c for c in columns if c.tag == column.tag and c.exact]
        match self._one("literal", "literal", "null", "column", "list"):
            case "null":
                return f"{column.sql} IS {self._one('', 'NOT ')}NULL"
            case "column":
                return f"{column.sql} {self._one('=', '<', '<>')} {self._one(*same).sql}"
            case "list":
                return f"{column.sql} {self._one('', 'NOT ')}IN ({', '.join(LITERALS[column.tag])})"
            case _:
                return f"{column.sql} {self._one('=', '<', '>=', '<>')} {self._one(*LITERALS[column.tag])}"

    def _in(self, columns: Sequence[Column], depth: int) -> str:
        word = self._one("IN", "NOT IN")
        self.features.add(f"{word.lower()} subquery")
        column = self._one(*[c for c in columns if c.exact])
        from_, theirs = self._from(0)
        chosen = self._of(column.tag, theirs)
        return f"{column.sql} {word} (SELECT {chosen.sql} FROM {from_}{self._where(theirs, 0)})"

    def _exists(self, columns: Sequence[Column]) -> str:
        word = self._one("EXISTS", "NOT EXISTS")
        self.features.add(word.lower())
        from_, theirs = self._from(0)
        return f"{word} (SELECT 1 FROM {from_} WHERE {self._join_condition(columns, theirs)})"

    def _scalar(self, columns: Sequence[Column]) -> str:
        from_, theirs = self._from(0)
        column = self._one(*[c for c in columns if c.exact and c.tag != "L"] or [Column("1", "I")])
        inner = self._of(column.tag, theirs)
        where = ""
        if self._sometimes(2):
            self.features.add("scalar subquery, correlated")
            where = f" WHERE {self._join_condition(columns, theirs)}"
        else:
            self.features.add("scalar subquery")
        value = f"(SELECT {self._one('max', 'min')}({inner.sql}) FROM {from_}{where})"
        return f"{column.sql} {self._one('=', '<', '>=')} {value}"

    # -- expressions ---------------------------------------------------------------------------------------------------

    def _of(self, tag: Tag, columns: Sequence[Column]) -> Column:
        """A column of the type, cast to it exactly; a literal where there is none."""
        fitting = [c for c in columns if c.tag == tag and c.exact]
        return self._one(*fitting) if fitting else Column(f"{self._one(*LITERALS[tag])}::{TYPES[tag]}", tag)

    def _expression(self, column: Column) -> Column:
        if column.exact and self._sometimes():
            return Column(self._one(*FUNCTIONS[column.tag]).format(column.sql), column.tag)
        return column


@dataclass(frozen=True)
class RandomQuery:
    """A query with what it consists of."""

    sql: str
    features: frozenset[str]


@st.composite
def queries(draw: st.DrawFn, declared: Sequence[Source], depth: int = 3) -> RandomQuery:
    """A query over the sources, nested up to `depth` deep."""
    writer = Writer(draw, declared)
    relation = writer.query(depth)
    return RandomQuery(relation.sql, frozenset(writer.features))
