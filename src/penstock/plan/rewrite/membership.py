"""EXISTS, IN and their negations among the conditions of WHERE: semi and anti joins.

Equations, for a row t around a subquery with places R, local conditions L and conditions C(t) that mention t, and D the
distinct values of R that C mentions (and of y):

    exists (select ... from R where L and C(t))      =  t semi join D on C(t)
    not exists (...)                                 =  t anti join D on C(t)
    x in (select y from R where L and C(t))          =  t semi join D on C(t) and x = y
    x not in (select y ...)                          =  t anti join D on C(t) and x = y
                                                          anti join D' on C(t) and (y is null or x is null)
    (x, z) not in (select y, w ...)                  =  t anti join D on C(t) and (x = y or x is null or y is null)
                                                          and (z = w or z is null or w is null)

D' and the questions for NULL are left out where neither side can be NULL. Where C is equalities that fix every column
of D, a row meets one row of D at most, and the semi join is an inner join. What is not of this form is a value
(values.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from penstock.plan.clauses import Opaque, is_plain
from penstock.plan.parse import DIALECT
from penstock.plan.rewrite.correlation import never_null, told_apart_alike
from penstock.plan.rewrite.made_of import add_join, column, conjunction, derived, named, set_where, where_of
from penstock.plan.rewrite.scopes import free_columns, fresh
from penstock.plan.rewrite.values import Around, body, or_unknown, own_subqueries, value_of, wrapped


@dataclass(frozen=True)
class _Condition:
    """One condition of WHERE. left: what is compared with the subquery's columns, none for EXISTS."""

    query: exp.Query
    left: tuple[exp.Expr, ...]
    negated: bool


@dataclass(frozen=True)
class _Sides:
    """A subquery taken apart. local: conditions on its places alone; mentioning: those that mention the row around."""

    query: exp.Select
    local: tuple[exp.Expr, ...]
    mentioning: tuple[exp.Expr, ...]
    free: frozenset[int]


def joined_membership(around: Around, part: exp.Expr) -> bool:
    """Join what a condition of WHERE asks, so that it need not be asked again; whether it was of that kind."""
    condition = _condition(part)
    if condition is None:
        return False
    sides = _sides(around, condition)
    if sides is None:
        return False
    if condition.left and len(condition.left) != len(sides.query.expressions):
        return False
    left = [_without_subqueries(around, value) for value in condition.left]
    pieces = _Pieces(sides.free)
    outputs = [e.unalias() for e in sides.query.expressions[: len(left)]]
    alias = fresh(around.select, "not_in" if condition.negated else "in") if left else fresh(around.select, "exists")
    on = [pieces.over(part, alias) for part in sides.mentioning]
    equal = [exp.EQ(this=_operand(x), expression=pieces.named(y, alias)) for x, y in zip(left, outputs, strict=True)]
    if not condition.negated:
        _join(around, sides, pieces, alias, [*on, *equal], "SEMI")
        return True
    known = [_both_known(around, sides.query, x, y) for x, y in zip(left, outputs, strict=True)]
    if len(left) > 1 and not all(known) and not around.made.binder.exact_rows():
        raise Opaque("NOT IN of several columns that may be NULL, as this DuckDB answers it")
    met: list[exp.Expr] = [e if k or len(left) == 1 else or_unknown(e) for e, k in zip(equal, known, strict=True)]
    _join(around, sides, pieces, alias, [*on, *met], "ANTI")
    if len(left) == 1 and not known[0]:
        _join_unknown(around, sides, left[0], outputs[0])
    return True


def _condition(part: exp.Expr) -> _Condition | None:
    negated = False
    part = part.unnest()
    while isinstance(part, exp.Not):
        negated, part = not negated, part.this.unnest()
    if isinstance(part, exp.Exists) and isinstance(part.this, exp.Query):
        return _Condition(body(part.this), (), negated)
    if isinstance(part, exp.In) and part.args.get("query") is not None:
        left = part.this.unnest()
        values = tuple(left.expressions) if isinstance(left, exp.Tuple) else (left,)
        return _Condition(body(part.args["query"]), values, negated)
    if (
        isinstance(part, exp.EQ)
        and isinstance(part.expression, exp.Any)
        and isinstance(part.expression.this, exp.Query)
    ):
        return _Condition(body(part.expression.this), (part.this,), negated)
    if (
        isinstance(part, exp.NEQ)
        and isinstance(part.expression, exp.All)
        and isinstance(part.expression.this, exp.Query)
    ):
        return _Condition(body(part.expression.this), (part.this,), not negated)
    return None


def _sides(around: Around, condition: _Condition) -> _Sides | None:
    """The subquery taken apart; None where it mentions the row around it elsewhere than in its own conditions."""
    query = condition.query
    correlated = bool(free_columns(query))
    if not isinstance(query, exp.Select) or not is_plain(_loosened(query), around.aggregates):
        if correlated:
            return None
        query = wrapped(around, query)
    free = frozenset(id(c) for c in free_columns(query))
    local: list[exp.Expr] = []
    mentioning: list[exp.Expr] = []
    placed: set[int] = set()
    for part in where_of(query):
        mentioned = free & {id(c) for c in part.find_all(exp.Column)}
        placed |= mentioned
        if mentioned and part.find(exp.Query) is not None:
            return None
        (mentioning if mentioned else local).append(part)
    if condition.left and free - placed:
        return None
    ignored = {id(c) for e in query.expressions for c in e.find_all(exp.Column)} if not condition.left else set()
    if free - placed - ignored:
        return None
    return _Sides(query, tuple(local), tuple(mentioning), free)


def _loosened(query: exp.Select) -> exp.Select:
    """Without what does not matter to whether a row is there."""
    query = query.copy()
    query.set("distinct", None if not _is_on(query) else query.args["distinct"])
    if not query.args.get("limit") and not query.args.get("offset"):
        query.set("order", None)
    if any(e.is_star for e in query.expressions):
        query.set("expressions", [exp.alias_(exp.Literal.number(1), "one")])
    return query


def _is_on(query: exp.Select) -> bool:
    distinct = query.args.get("distinct")
    return distinct is not None and distinct.args.get("on") is not None


class _Pieces:
    """What conditions read of the subquery's places: columns of D, each once, and which of them equalities fix."""

    def __init__(self, free: frozenset[int]) -> None:
        self._free = free
        self._names: dict[str, str] = {}
        self.columns: list[exp.Expr] = []

    def named(self, piece: exp.Expr, alias: str) -> exp.Column:
        text = piece.sql(DIALECT)
        if text not in self._names:
            self._names[text] = f"c{len(self.columns)}"
            self.columns.append(piece.copy())
        return column(alias, self._names[text])

    def over(self, part: exp.Expr, alias: str) -> exp.Expr:
        """The condition over D and the row around it."""
        if isinstance(part, exp.EQ):
            for mine, theirs in ((part.this, part.expression), (part.expression, part.this)):
                own = {id(c) for c in mine.find_all(exp.Column)}
                others = {id(c) for c in theirs.find_all(exp.Column)}
                if own and not own & self._free and others <= self._free:
                    return exp.EQ(this=_operand(theirs), expression=self.named(mine, alias))
        return self._replaced(part, alias)

    def _replaced(self, node: exp.Expr, alias: str) -> exp.Expr:
        if isinstance(node, exp.Column):
            return node.copy() if id(node) in self._free or not node.table else self.named(node, alias)
        made = node.copy()
        for key, value in node.args.items():
            if isinstance(value, exp.Expr):
                made.set(key, self._replaced(value, alias))
            elif isinstance(value, list):
                made.set(key, [self._replaced(v, alias) if isinstance(v, exp.Expr) else v for v in value])
        return made


def _join(around: Around, sides: _Sides, pieces: _Pieces, alias: str, on: Sequence[exp.Expr], kind: str) -> None:
    query = sides.query.copy()
    set_where(query, sides.local)
    for part in ("order", "limit", "offset"):
        query.set(part, None)
    query.set("distinct", exp.Distinct())
    query.set("expressions", named(pieces.columns or [exp.true()]))
    outer = {e.expression.sql(): e.this for e in on if isinstance(e, exp.EQ) and isinstance(e.expression, exp.Column)}
    fixed = [outer.get(column(alias, f"c{n}").sql()) for n in range(len(pieces.columns))]
    one = kind == "SEMI" and all(
        value is not None and told_apart_alike(around.made, sides.query, piece, around.select, value)
        for value, piece in zip(fixed, pieces.columns, strict=True)
    )
    add_join(around.select, derived(query, alias), conjunction(on), kind="" if one else kind)


def _both_known(around: Around, query: exp.Select, left: exp.Expr, output: exp.Expr) -> bool:
    return never_null(around.made, around.before, left) and never_null(around.made, query, output)


def _join_unknown(around: Around, sides: _Sides, left: exp.Expr, output: exp.Expr) -> None:
    """NOT IN is not true where x or one of the rows is NULL."""
    pieces = _Pieces(sides.free)
    alias = fresh(around.select, "unknown")
    on = [pieces.over(part, alias) for part in sides.mentioning]
    hole: exp.Expr = pieces.named(exp.Is(this=exp.Paren(this=output.copy()), expression=exp.Null()), alias)
    missing = exp.Is(this=exp.Paren(this=left.copy()), expression=exp.Null())
    if not never_null(around.made, around.before, left):
        hole = exp.Paren(this=exp.Or(this=hole, expression=missing))
    _join(around, sides, pieces, alias, [*on, hole], "ANTI")


def _without_subqueries(around: Around, value: exp.Expr) -> exp.Expr:
    holder = exp.Paren(this=value.copy())
    for node in own_subqueries(holder):
        node.replace(value_of(around, node))
    inner = holder.this
    assert isinstance(inner, exp.Expr)
    return inner


def _operand(value: exp.Expr) -> exp.Expr:
    return value.copy() if isinstance(value, exp.Column | exp.Literal | exp.Func) else exp.Paren(this=value.copy())
