"""A query taken apart into blocks: CTEs, subqueries in FROM, unions and SELECTs each become blocks of their own.

Blocks inside a view are named `view$part`, which no declared name can be. What cannot be taken apart raises `Opaque`;
an inner query then becomes a refresh of its own, so that the outer one need not be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlglot import exp

from penstock.plan import flat, ranked
from penstock.plan.blocks import ConstantBlock, Field, FlatBlock, RefreshBlock, Relation, UnionBlock, quote
from penstock.plan.clauses import Opaque, is_grouped, is_plain, refuse
from penstock.plan.fuse import fused
from penstock.plan.late import exclude_late
from penstock.plan.limits import Ranking, distinct_on_as_rank, is_distinct_on, is_limited, limit_as_rank, named
from penstock.plan.made import Made
from penstock.plan.noise import noisy_columns
from penstock.plan.parse import DIALECT
from penstock.plan.qualification import qualified
from penstock.plan.rewrite import sets
from penstock.plan.rewrite.scopes import places_of, relations_read, tables_in_sight
from penstock.plan.rewrite.select import rewrite_select
from penstock.plan.select import compile_select
from penstock.plan.select_interval import over_recent_rows
from penstock.plan.select_ranked import own_windows, ranked_block, split_windows
from penstock.plan.select_session import is_session, session_block


def compile_query(made: Made, tree: exp.Query, name: str, fields: tuple[Field, ...]) -> Relation:
    """Blocks for `tree` under `name`; raises Opaque where only refresh is right."""
    tree = fused(named(tree, made.relations) if isinstance(tree, exp.Select) else tree)
    if is_limited(tree):
        return _ranking(made, limit_as_rank(tree, fields, made.binder), name, fields)
    if isinstance(tree, exp.Select) and is_distinct_on(tree):
        return _ranking(made, distinct_on_as_rank(tree, fields, made.binder), name, fields)
    tree = _drop_order(tree)
    tree = _hoist(made, tree, name)
    match tree:
        case exp.Union() if tree.args.get("by_name"):
            return compile_query(made, sets.by_position(tree, fields, _described(made)), name, fields)
        case exp.Union():
            return _union(made, tree, name, fields)
        case exp.Except() | exp.Intersect():
            return compile_query(made, sets.as_group(tree, fields, _described(made)), name, fields)
        case exp.Values():
            return _constant(made, tree, name, fields)
        case exp.Select():
            return _select(made, tree, name, fields)
        case _:
            raise Opaque(type(tree).__name__.upper())


def _select(made: Made, tree: exp.Select, name: str, fields: tuple[Field, ...]) -> Relation:
    if (rewritten := rewrite_select(made, tree)) is not None:
        return compile_query(made, rewritten, name, fields)
    windows = bool(own_windows(tree) or tree.args.get("qualify"))
    if tree.args.get("distinct") is not None and (windows or is_grouped(tree, made.binder.aggregates())):
        return _distinct(made, tree, name, fields)
    if windows:
        return _ranked(made, tree, name, fields)
    if tree.args.get("from_") is None:
        refuse(tree)
        return _constant(made, tree, name, fields)
    tree = over_recent_rows(made, tree, name)
    selected = compile_select(tree, name, fields, made.relations, made.binder)
    for block in selected.blocks:
        if isinstance(block, FlatBlock):
            _check(made, block)
        made.add(block)
    return selected.blocks[-1].relation


def _check(made: Made, block: FlatBlock) -> None:
    """Bind a block's own SQL before anything runs: what does not bind (`BindProblem`) goes to refresh."""
    names = {name: quote(name) for name in block.inputs}
    bare = replace(block, hidden_alias=None, late=None)
    made.binder.describe(flat.content_sql(bare, names))


def _ranking(made: Made, ranking: Ranking, name: str, fields: tuple[Field, ...]) -> Relation:
    """LIMIT and DISTINCT ON: the query below, and a rank over it."""
    below = _inner(made, ranking.below, f"{name}$all", exp.TableAlias())
    return compile_query(made, ranking.over(below.name, fields), name, fields)


def _ranked(made: Made, tree: exp.Select, name: str, fields: tuple[Field, ...]) -> Relation:
    """Window functions over the query that computes what they read."""
    split = split_windows(tree, made.binder.aggregates())
    below = _inner(made, split.inner, f"{name}$rows", exp.TableAlias())
    block = ranked_block(name, fields, split, below)
    made.binder.describe(ranked.content_sql(block, quote(below.name)))
    made.add(block)
    return block.relation


def _distinct(made: Made, tree: exp.Select, name: str, fields: tuple[Field, ...]) -> Relation:
    """DISTINCT over what a block of its own computes."""
    tree = tree.copy()
    tree.set("distinct", None)
    below = _inner(made, tree, f"{name}$all", exp.TableAlias())
    everything = exp.select(*(quote(f.name) for f in fields), dialect=DIALECT).distinct().from_(quote(below.name))
    return compile_query(made, qualified(everything, made.schema()), name, fields)


def _described(made: Made) -> Callable[[exp.Query], tuple[Field, ...]]:
    return lambda query: made.binder.describe(query.sql(DIALECT))


def _constant(made: Made, tree: exp.Expr, name: str, fields: tuple[Field, ...]) -> Relation:
    relation = Relation(name, fields, append_only=True)
    made.add(ConstantBlock(relation, tree.sql(DIALECT)))
    return relation


def _drop_order(tree: exp.Query) -> exp.Query:
    """ORDER BY without LIMIT says nothing about a relation."""
    if tree.args.get("order") is None:
        return tree
    tree = tree.copy()
    tree.set("order", None)
    return tree


def _hoist(made: Made, tree: exp.Query, name: str) -> exp.Query:
    """Make blocks of CTEs and of subqueries in FROM; the tree then reads them by name."""
    tree = tree.copy()
    with_ = tree.args.get("with_")
    if with_ is not None:
        if with_.args.get("recursive"):
            raise Opaque("a recursive CTE")
        aliases = [cte.alias.lower() for cte in with_.expressions]
        if len(set(aliases)) != len(aliases):
            raise Opaque("two CTEs of one name")
        tree.set("with_", None)
        for cte in with_.expressions:
            block = _inner(made, cte.this, f"{name}$cte_{cte.alias}", cte.args["alias"])
            _rename(tree, cte.alias, block.name)
            for other in with_.expressions:
                _rename(other.this, cte.alias, block.name)
    if isinstance(tree, exp.Select):
        for number, values in enumerate(_from_values(tree), 1):
            block = _inner_constant(made, values, f"{name}$values_{values.alias or number}")
            alias = exp.TableAlias(this=exp.to_identifier(values.alias or block.name, quoted=True))
            values.replace(exp.Table(this=exp.to_identifier(block.name, quoted=True), alias=alias))
        for number, subquery in enumerate(_from_subqueries(tree), 1):
            if subquery.args.get("pivots") or not isinstance(subquery.this, exp.Query):
                raise Opaque("PIVOT or UNPIVOT")
            if not subquery.alias:
                raise Opaque("a subquery without a name")
            below = _session if is_session(subquery) else _inner
            place = f"{name}$from_{subquery.alias}_{number}"
            while place in made.blocks:  # A rewrite put another query in the place of one that is a block already.
                place += "_again"
            block = below(made, subquery.this, place, subquery.args["alias"])
            subquery.replace(exp.Table(this=exp.to_identifier(block.name, quoted=True), alias=subquery.args["alias"]))
    return tree


def _from_subqueries(tree: exp.Select) -> list[exp.Subquery]:
    places = [tree.args["from_"].this] if tree.args.get("from_") else []
    places += [join.this for join in tree.args.get("joins") or []]
    return [p for p in places if isinstance(p, exp.Subquery)]


def _from_values(tree: exp.Select) -> list[exp.Values]:
    return [p for p in places_of(tree) if isinstance(p, exp.Values)]


def _inner_constant(made: Made, values: exp.Values, name: str) -> Relation:
    fields = made.binder.describe(f"SELECT * FROM {values.sql(DIALECT)}")
    relation = _constant(made, exp.select("*").from_(values.copy()), name, fields)
    made.binder.add(name, fields)
    return relation


def _rename(tree: exp.Expr, alias: str, name: str) -> None:
    for table in tables_in_sight(tree, alias):
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
        table.set("this", exp.to_identifier(name, quoted=True))


def _inner(made: Made, tree: exp.Query, name: str, alias: exp.TableAlias) -> Relation:
    """A block for a query inside a view; refresh where it is opaque, so that the outer query need not be."""
    if alias.args.get("columns"):
        raise Opaque("a column list in an alias")
    fields = made.binder.describe(tree.sql(DIALECT))
    if len({f.name.lower() for f in fields}) != len(fields):
        raise Opaque("a subquery with two columns of one name")
    before = set(made.blocks)
    try:
        relation = compile_query(made, tree, name, fields)
    except Opaque as reason:
        for added in set(made.blocks) - before:
            made.drop(added)
        relation = refresh_block(made, name, fields, tree, tree.sql(DIALECT), str(reason))
    made.relations[name.lower()] = relation
    made.binder.add(name, tuple(Field(f.name, f.type) for f in fields))
    return relation


def _session(made: Made, tree: exp.Query, name: str, alias: exp.TableAlias) -> Relation:
    """A session macro's rows: a block of their own, or window functions where that is not possible."""
    before = set(made.blocks)
    try:
        relation = session_block(made, tree, name, _inner)
    except Opaque:
        for added in set(made.blocks) - before:
            made.drop(added)
        return _inner(made, tree, name, alias)
    made.binder.add(name, relation.fields)
    return relation


def _union(made: Made, tree: exp.Union, name: str, fields: tuple[Field, ...]) -> Relation:
    parts = []
    for number, part in enumerate(_branches(tree, bool(tree.args.get("distinct")))):
        parts.append(compile_query(made, _branch(made, part, fields), f"{name}$branch_{number}", fields))
    distinct = bool(tree.args.get("distinct"))
    all_name = f"{name}$all" if distinct else name
    relation = Relation(
        all_name,
        fields,
        append_only=all(p.append_only for p in parts),
        streams=tuple(dict.fromkeys(s for p in parts for s in p.streams)),
        transient=any(p.transient for p in parts),
    )
    made.add(UnionBlock(relation, tuple(p.name for p in parts)))
    if not distinct:
        return relation
    made.relations[all_name.lower()] = relation
    made.binder.add(all_name, fields)
    everything = exp.select(*(quote(f.name) for f in fields), dialect=DIALECT).distinct().from_(quote(all_name))
    return compile_query(made, qualified(everything, made.schema()), name, fields)


def _branch(made: Made, part: exp.Query, fields: tuple[Field, ...]) -> exp.Query:
    """A branch with the names and types of the union."""
    own = made.binder.describe(part.sql(DIALECT))
    if isinstance(part, exp.Select) and is_plain(part, made.binder.aggregates()):
        part = part.copy()
        columns = [
            e.unalias() if o.type == f.type else exp.cast(e.unalias(), f.type, dialect=DIALECT)
            for e, o, f in zip(part.expressions, own, fields, strict=True)
        ]
        part.set("expressions", [exp.alias_(c, f.name, quoted=True) for c, f in zip(columns, fields, strict=True)])
        return part
    if len({o.name.lower() for o in own}) != len(own):
        raise Opaque("a UNION branch with two columns of one name")
    renamed = exp.select(
        *(f"CAST({quote(o.name)} AS {f.type}) AS {quote(f.name)}" for o, f in zip(own, fields, strict=True)),
        dialect=DIALECT,
    ).from_(exp.Subquery(this=part.copy(), alias=exp.TableAlias(this=exp.to_identifier("b", quoted=True))))
    return qualified(renamed, made.schema())


def _branches(tree: exp.Query, distinct: bool) -> list[exp.Query]:
    """The branches of nested unions of one kind, left to right."""
    plain = not any(tree.args.get(part) for part in ("with_", "order", "limit", "offset"))
    if isinstance(tree, exp.Union) and plain and bool(tree.args.get("distinct")) == distinct:
        return [b for side in (tree.left, tree.right) if isinstance(side, exp.Query) for b in _branches(side, distinct)]
    if isinstance(tree, exp.Subquery) and plain and isinstance(inner := tree.unnest(), exp.Query):
        return _branches(inner, distinct)
    return [tree]


def refresh_block(
    made: Made, name: str, fields: tuple[Field, ...], tree: exp.Query, text: str, reason: str
) -> Relation:
    inputs = tuple(
        dict.fromkeys(made.relations[n.lower()].name for n in relations_read(tree) if n.lower() in made.relations)
    )
    without_late, late = exclude_late(tree, made.relations)
    relation = Relation(
        name,
        fields,
        streams=tuple(dict.fromkeys(s for i in inputs for s in made.relations[i.lower()].streams)),
        transient=any(made.relations[i.lower()].transient for i in inputs),
    )
    sql = without_late.sql(DIALECT) if late else text
    made.add(RefreshBlock(relation, sql, inputs, reason, late, noisy_columns(tree, fields)))
    return relation
