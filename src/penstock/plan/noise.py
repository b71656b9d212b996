"""Floats that depend on the order in which they were added up (semantics V3).

Computed again, such a float may differ in its last digits though nothing has changed. So a block that computes again
keeps the row that it has told, where the new one differs in such floats alone and by no more than `TOLERANCE`. Only
what a sum flows into by arithmetic is treated so: a float that is read, picked or compared is told with every digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlglot import exp

from penstock.plan.blocks import Field, column_list, quote, same
from penstock.plan.parse import function_names

# Far above the noise of a million additions, far below the 1e-9 at which floats are compared across runs.
TOLERANCE = 1e-12
_ADDED_UP = {"sum", "avg", "mean", "fsum", "kahan_sum", "sumkahan", "favg", "product", "sem", "entropy", "skewness"}
_ADDED_UP |= {"stddev", "stddev_pop", "stddev_samp", "variance", "var_pop", "var_samp", "kurtosis", "kurtosis_pop"}
_ADDED_UP |= {"corr", "covar_pop", "covar_samp", "regr_avgx", "regr_avgy", "regr_intercept", "regr_r2", "regr_slope"}
_ADDED_UP |= {"regr_sxx", "regr_sxy", "regr_syy"}
_ARITHMETIC = (exp.Paren, exp.Cast, exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Coalesce, exp.Alias)
_CARRIERS = (exp.Filter, exp.Window, exp.Min, exp.Max, exp.AnyValue)
Noisy = Mapping[str, bool]


def noisy_columns(query: exp.Expr, fields: Sequence[Field]) -> tuple[str, ...]:
    """The columns of a query that may differ in their last digits when it is computed again."""
    outputs = _outputs(query, {})
    if len(outputs) != len(fields):
        return ()
    return tuple(f.name for f, (_, noisy) in zip(fields, outputs, strict=True) if noisy and f.type == "DOUBLE")


def is_noisy(node: exp.Expr, sources: Mapping[str, Noisy] | None = None) -> bool:
    """Whether arithmetic over sums makes the expression. sources: which columns of subqueries are noisy, by alias."""
    if isinstance(node, exp.Column):
        return (sources or {}).get(node.table.lower(), {}).get(node.name.lower(), False)
    if isinstance(node, exp.Func) and function_names(node) & _ADDED_UP:
        return True
    if isinstance(node, _CARRIERS):
        return is_noisy(node.this, sources)
    return isinstance(node, _ARITHMETIC) and any(is_noisy(child, sources) for child in node.iter_expressions())


def _outputs(query: exp.Expr, known: Mapping[str, Noisy]) -> list[tuple[str, bool]]:
    """Each output column of a query, and whether it is noisy. known: those of the CTEs in sight."""
    with_ = query.args.get("with_")
    for cte in with_.expressions if with_ is not None and not with_.args.get("recursive") else []:
        known = {**known, cte.alias.lower(): dict(_outputs(cte.this, known))}
    if isinstance(query, exp.Subquery):
        return _outputs(query.this, known)
    if isinstance(query, exp.SetOperation):
        left, right = _outputs(query.left, known), _outputs(query.right, known)
        return [(name, mine or theirs[1]) for (name, mine), theirs in zip(left, right, strict=False)]
    if not isinstance(query, exp.Select):
        return []
    places = [query.args["from_"].this] if query.args.get("from_") else []
    places += [join.this for join in query.args.get("joins") or []]
    sources: dict[str, Noisy] = {}
    for place in places:
        if isinstance(place, exp.Subquery):
            sources[place.alias.lower()] = dict(_outputs(place.this, known))
        elif isinstance(place, exp.Table) and place.name.lower() in known:
            sources[place.alias_or_name.lower()] = known[place.name.lower()]
    return [(e.alias_or_name.lower(), is_noisy(e.unalias(), sources)) for e in query.expressions]


# -- SQL ---------------------------------------------------------------------------------------------------------------


def close_sql(left: str, right: str) -> str:
    """The condition that two floats are the same but for noise."""
    return (
        f"({left} IS NOT DISTINCT FROM {right} OR (isfinite({left}) AND isfinite({right}) "
        f"AND abs({left} - {right}) <= {TOLERANCE!r} * greatest(abs({left}), abs({right}))))"
    )


def settled_sql(rows: str, stored: str, keys: Sequence[Field], fields: Sequence[Field], noisy: Sequence[str]) -> str:
    """`rows`, one a key, with the stored floats in place of theirs where nothing but noise tells the two rows apart."""
    others = [Field(f.name, f.type) for f in fields if f.name not in noisy]
    near = " AND ".join(close_sql(f"s.{quote(c)}", f"r.{quote(c)}") for c in noisy)
    alike = f"s._ps_is AND {same('r', 's', others)} AND {near}"
    chosen = [
        f"CASE WHEN {alike} THEN s.{quote(f.name)} ELSE r.{quote(f.name)} END AS {quote(f.name)}"
        if f.name in noisy
        else f"r.{quote(f.name)}"
        for f in fields
    ]
    listed = ", ".join([*(f"r.{quote(k.name)}" for k in keys), *chosen])
    known = f"(SELECT *, TRUE AS _ps_is FROM {stored})"
    return f"SELECT {listed} FROM {rows} AS r LEFT JOIN {known} AS s ON {same('r', 's', list(keys))}"


def without_noise_sql(gone: str, come: str, fields: Sequence[Field], noisy: Sequence[str]) -> str:
    """A delta of rows that go and come, without the pairs that differ by noise alone.

    Rows that agree in all other columns are paired in the order of their floats; what finds no partner is a change.
    """
    columns = column_list([f.name for f in fields])
    others = [Field(f.name, f.type) for f in fields if f.name not in noisy]
    partition = f"PARTITION BY {column_list([f.name for f in others])} " if others else ""
    number = f"row_number() OVER ({partition}ORDER BY {column_list(list(noisy))}) AS _ps_n"
    near = " AND ".join(close_sql(f"g.{quote(c)}", f"c.{quote(c)}") for c in noisy)
    paired = f"g._ps_n = c._ps_n AND {same('g', 'c', others)} AND {near}"
    return (
        f"WITH g AS MATERIALIZED (SELECT *, {number} FROM ({gone})), "
        f"c AS MATERIALIZED (SELECT *, {number} FROM ({come})) "
        f'SELECT {columns}, -1 AS "_ps_w" FROM g WHERE NOT EXISTS (SELECT 1 FROM c WHERE {paired}) '
        f'UNION ALL SELECT {columns}, 1 AS "_ps_w" FROM c WHERE NOT EXISTS (SELECT 1 FROM g WHERE {paired})'
    )
