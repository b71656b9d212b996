"""SQL whose answer does not follow from the rows: clocks, chance, the machine, the order on disk. It is refused.

Functions that the engine calls volatile are refused by name; so is what it does not call so: samples, positions of
stored rows, positional joins, settings, and relations that no declaration names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp

from penstock.errors import DeclarationError
from penstock.plan.parse import DIALECT, Query, function_names, place_of_word

_CLOCKS = (
    exp.CurrentTimestamp,
    exp.CurrentDate,
    exp.CurrentTime,
    exp.CurrentDatetime,
    exp.Localtime,
    exp.Localtimestamp,
)
_CLOCK_NAMES = {"now", "today", "current_date", "get_current_timestamp", "get_current_time", "transaction_timestamp"}
_CLOCK_NAMES |= {"ago", "current_localtime", "current_localtimestamp", "pg_conf_load_time", "pg_postmaster_start_time"}
_CLOCK_WORDS = {"current_timestamp", "current_date", "current_time", "localtime", "localtimestamp"}
_MACHINE = {"current_setting", "getvariable", "version", "current_user", "session_user", "current_catalog"}
_CHANCE = {"reservoir_quantile"}
_JSON_LISTS = {"json_group_array", "json_group_object", "json_group_structure"}
_FROM_ARGUMENTS = {"range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree", "explode"}
_CLOCK_HINT = (
    "declare one clock: pipeline.clock('tick', '1s'), or CREATE CLOCK tick EVERY INTERVAL '1 second'; "
    "now() is then its newest tick"
)
_INPUT_HINT = "put the value into the rows at the source"


@dataclass(frozen=True)
class _Found:
    """What is refused: what it does, the SQL as it stands, the word to point at, what to write instead."""

    what: str
    shown: str
    word: str
    hint: str
    expected: str = "functions whose result follows from their arguments"


def refuse_volatile(query: Query, volatile: frozenset[str]) -> None:
    """Pass only what every engine answers alike, from the declared sources alone.

    Args:
        volatile: the engine's names of functions whose result is not determined by their arguments.

    Raises:
        DeclarationError: PS-DECL-008 with the place, or PS-DECL-003 for a relation that is not declared.
    """
    relation = next(_undeclared(query.tree), None)
    if relation is not None:
        raise DeclarationError(
            "PS-DECL-003",
            f"view {query.view.name} reads {relation}, which is not declared",
            where=place_of_word(query.view.where, query.text, relation.split("(")[0]),
            expected="declared sources, views and steps",
            got=relation,
            hint="declare a source with a URL for it: a reference reads a file as a whole",
        )
    found = next(_volatile(query.tree, volatile), None)
    if found is not None:
        raise DeclarationError(
            "PS-DECL-008",
            f"view {query.view.name}: {found.what}",
            where=place_of_word(query.view.where, query.text, found.word),
            expected=found.expected,
            got=found.shown,
            hint=found.hint,
        )


def _volatile(tree: exp.Expr, volatile: frozenset[str]) -> Iterator[_Found]:
    for node in tree.walk():
        match node:
            case exp.Summarize() | exp.Describe() | exp.Show() | exp.Command():
                yield _Found(
                    "it tells of a relation, and a view is a query over rows",
                    node.sql(DIALECT),
                    node.sql(DIALECT).split(" ")[0],
                    "write the columns and aggregates that are wanted",
                    "a SELECT",
                )
            case exp.Pivot() if not node.args.get("unpivot") and not _fixed(node):
                yield _Found(
                    "PIVOT makes its columns of the values that it finds",
                    node.sql(DIALECT).strip(),
                    "PIVOT",
                    "name the values: ON column IN ('a', 'b'); an expression goes into parentheses",
                    "columns that are known before the rows are",
                )
            case exp.TableSample():
                yield _sample(node)
            case exp.Join() if (node.method or "").upper() == "POSITIONAL":
                yield _Found(
                    "POSITIONAL JOIN pairs rows by their order, and relations have none",
                    "POSITIONAL JOIN",
                    "POSITIONAL",
                    "number the rows in the source, and join by the number",
                    "a join with a condition",
                )
            case exp.Column() | exp.Pseudocolumn() if node.name.lower() == "rowid":
                yield _Found(
                    "rowid is where a row happens to be stored",
                    node.sql(DIALECT),
                    "rowid",
                    "number the rows in the source, or row_number() OVER (ORDER BY ...)",
                    "columns of the declared sources",
                )
            case exp.Column() if not node.table and node.name.lower() in _CLOCK_WORDS:
                yield _called(node, node.name.lower(), clock=True)
            case exp.Func():
                yield from _function(node, volatile)
            case _:
                pass


def _fixed(pivot: exp.Pivot) -> bool:
    """Whether a PIVOT names the values that become columns."""
    values = pivot.args.get("fields") or pivot.expressions
    return all(
        # DuckDB 2.0 reads `a || b IN (...)` as a truth value that becomes columns.
        isinstance(value, exp.In) and not value.args.get("query") and not isinstance(value.this, exp.Binary)
        for value in values
    )


def _sample(node: exp.TableSample) -> _Found:
    word = "TABLESAMPLE" if isinstance(node.parent, exp.Table) else "SAMPLE"
    return _Found(
        "a sample gives other rows each time",
        node.sql(DIALECT).strip(),
        word,
        "choose rows by a column: WHERE id % 20 = 0",
        "rows that are chosen by what they hold",
    )


def _function(node: exp.Func, volatile: frozenset[str]) -> Iterator[_Found]:
    names = function_names(node)
    if isinstance(node, _CLOCKS) or names & _CLOCK_NAMES or ("age" in names and _arguments(node) == 1):
        yield _called(node, node.sql(DIALECT), clock=True)
    elif names & (volatile | _MACHINE | _CHANCE) or isinstance(node, exp.CurrentUser | exp.SessionUser):
        yield _called(node, node.sql(DIALECT), clock=False)
    elif listed := names & _JSON_LISTS:
        name = listed.pop()
        yield _Found(
            f"{name} lists rows in no stated order",
            node.sql(DIALECT),
            name,
            "to_json(list(x ORDER BY x)), or to_json(map_from_entries(list((k, v) ORDER BY k)))",
            "a list that states its order",
        )


def _arguments(node: exp.Func) -> int:
    if isinstance(node, exp.Anonymous):
        return len(node.expressions)
    return sum(1 for value in node.args.values() if isinstance(value, exp.Expr))


def _called(node: exp.Expr, shown: str, *, clock: bool) -> _Found:
    hint = _CLOCK_HINT if clock else _INPUT_HINT
    return _Found(f"{shown} gives another answer each time", shown, shown.split("(", 1)[0], hint)


def _undeclared(tree: exp.Expr) -> Iterator[str]:
    """Table functions that read more than their arguments: files, settings, other relations by name."""
    for table in tree.find_all(exp.Table):
        function = table.this
        if isinstance(function, exp.Func) and not function_names(function) & _FROM_ARGUMENTS:
            yield function.sql(DIALECT)
