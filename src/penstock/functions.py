"""Python functions in views (semantics B2): over Arrow arrays, declared deterministic, with SQL types.

A function is pure: the same arguments give the same results, whatever rows come with them, for it is called with as
many rows at a time as the engine has. It sees NULLs, and returns one value a row of the declared type. The batch oracle
calls the same function. A body that changes is not seen by a state that is there; a new name is.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_type_hints, overload

import pyarrow as pa

from penstock.contract.annotations import Refused, column_of
from penstock.contract.types import parse_type
from penstock.errors import DeclarationError, RunError, Where
from penstock.graph import FunctionDecl, Graph

if TYPE_CHECKING:
    import duckdb

    from penstock.contract.schema import Column


_FAILED = re.compile(r"FunctionFailed: function (?P<name>\w+) (?P<what>[^\n]*)")


class FunctionFailed(Exception):
    """A function of the pipeline raised, or returned what it did not declare. The message names it."""


@overload
def function(call: Callable[..., Any]) -> FunctionDecl: ...


@overload
def function(
    *, name: str = "", arguments: Sequence[str] | None = None, returns: str = ""
) -> Callable[[Callable[..., Any]], FunctionDecl]: ...


def function(
    call: Callable[..., Any] | None = None,
    *,
    name: str = "",
    arguments: Sequence[str] | None = None,
    returns: str = "",
) -> FunctionDecl | Callable[[Callable[..., Any]], FunctionDecl]:
    """Make a function over Arrow arrays one that views may call, once `pipeline.function` has declared it.

    Args:
        name: what SQL calls it (default: its own name).
        arguments, returns: DuckDB types; default: the annotations, which are those of one row (`int`, `float`...).

    Raises:
        DeclarationError: PS-DECL-005 when a type is missing or unknown.

    Example:
        >>> import pyarrow.compute as pc
        >>> import penstock as ps
        >>> @ps.function
        ... def fee(amount: int) -> int:
        ...     return pc.max_element_wise(pc.divide(amount, 100), 1)
        >>> fee.name, fee.arguments, fee.returns
        ('fee', ('BIGINT',), 'BIGINT')
    """

    def declare(body: Callable[..., Any]) -> FunctionDecl:
        code = getattr(body, "__code__", None)
        where = Where(code.co_filename, code.co_firstlineno) if code is not None else Where()
        called = name or getattr(body, "__name__", "")
        taken = _given(called, arguments, where) if arguments is not None else _annotated(called, body, where)
        given = _type(called, returns, where) if returns else _annotation(called, body, "return", where)
        if not taken:
            raise _wrong(called, where, "at least one argument: it says for how many rows", "none")
        return FunctionDecl(called, taken, given, body, where)

    return declare if call is None else declare(call)


def _given(name: str, arguments: Sequence[str], where: Where) -> tuple[str, ...]:
    return tuple(_type(name, text, where) for text in arguments)


def _type(name: str, text: str, where: Where) -> str:
    try:
        parse_type(text)
    except ValueError as problem:
        raise _wrong(name, where, "types of DuckDB", str(problem) or text) from None
    return text


def _annotated(name: str, body: Callable[..., Any], where: Where) -> tuple[str, ...]:
    return tuple(_annotation(name, body, parameter, where) for parameter in inspect.signature(body).parameters)


def _annotation(name: str, body: Callable[..., Any], parameter: str, where: Where) -> str:
    hints = get_type_hints(body, include_extras=True)
    if parameter not in hints:
        shown = "what it returns" if parameter == "return" else f"its argument {parameter}"
        raise _wrong(name, where, "a type for each argument and the result", f"none for {shown}")
    try:
        return column_of(parameter, hints[parameter], (), _no_models).type
    except Refused as problem:
        raise _wrong(name, where, problem.expected, problem.got) from None


def _no_models(model: type[object]) -> tuple[Column, ...]:
    raise Refused("a model is no type of a column here", "a STRUCT(...) given as text", model.__name__)


def _wrong(name: str, where: Where, expected: str, got: str) -> DeclarationError:
    return DeclarationError(
        "PS-DECL-005",
        f"function {name}: its types are not known",
        where=where,
        expected=expected,
        got=got,
        hint='annotate it (def f(a: int) -> float), or say @ps.function(arguments=["BIGINT"], returns="DOUBLE")',
    )


def failure(problem: Exception, graph: Graph) -> RunError | None:
    """What to tell where a query failed in a function of the pipeline; None where it did not."""
    found = _FAILED.search(str(problem))
    declared = next((f for f in graph.functions if found and f.name == found["name"]), None)
    if declared is None or found is None:
        return None
    calls = re.compile(rf"\b{re.escape(declared.name)}\s*\(", re.IGNORECASE)
    views = ", ".join(view.name for view in graph.views if calls.search(view.sql))
    return RunError(
        "PS-RUN-002",
        f"function {declared.name} of view {views} failed; the epoch was rolled back",
        where=declared.where,
        expected=f"one {declared.returns} for each row, as an Arrow array",
        got=found["what"],
        hint="mend the function and start again: nothing is lost",
    )


def register(connection: duckdb.DuckDBPyConnection, functions: Sequence[FunctionDecl]) -> None:
    """Let the connection's queries call the functions."""
    for declared in functions:
        expected = connection.sql(f"SELECT NULL::{declared.returns} AS v").to_arrow_table().schema.field(0).type
        connection.create_function(  # type: ignore[call-overload]
            declared.name,
            _checked(declared, expected),
            list(declared.arguments),
            declared.returns,
            type="arrow",
            null_handling="special",
            side_effects=False,
        )


def _checked(declared: FunctionDecl, expected: pa.DataType) -> Callable[..., pa.Array]:
    """The function, held to what it declared."""

    def call(*arguments: pa.ChunkedArray) -> pa.Array:
        given = [a.combine_chunks() if isinstance(a, pa.ChunkedArray) else a for a in arguments]
        try:
            result = declared.call(*given)
        except Exception as problem:
            place = f"{type(problem).__name__}: {problem}"
            raise FunctionFailed(f"function {declared.name} raised {place}") from problem
        if isinstance(result, pa.ChunkedArray):
            result = result.combine_chunks()
        if not isinstance(result, pa.Array):
            raise FunctionFailed(f"function {declared.name} returned {type(result).__name__}, not an Arrow array")
        if result.type != expected:
            raise FunctionFailed(f"function {declared.name} returned {result.type}, and declares {declared.returns}")
        if len(result) != len(given[0]):
            raise FunctionFailed(f"function {declared.name} returned {len(result)} values for {len(given[0])} rows")
        return result

    # The database counts the parameters.
    one = inspect.Parameter.POSITIONAL_ONLY
    names = [inspect.Parameter(f"a{n}", one) for n in range(len(declared.arguments))]
    call.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    return call
