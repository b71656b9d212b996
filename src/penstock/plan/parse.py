"""From a view's text to a syntax tree: parameters, the names it reads, places in the user's file.

The text is kept: `Query.text` is what the user wrote with parameters filled in. Places in errors are places in the
user's file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import ParseError, TokenError

from penstock.durations import parse_duration
from penstock.errors import DeclarationError, Where
from penstock.pipeline import Graph, ParameterDecl, ViewDecl
from penstock.plan.blocks import literal
from penstock.plan.rewrite.scopes import relations_read

DIALECT = "duckdb"
SESSION_MACRO = "_ps_session"
# Most texts have neither word, and telling words from strings takes longer than looking for them.
_AT = re.compile(r"\bat\b", re.IGNORECASE)
_SESSION = re.compile(r"\bsession\b", re.IGNORECASE)


@dataclass(frozen=True)
class Query:
    """A parsed view. text: with parameters filled in; relations: the names it reads, as written."""

    view: ViewDecl
    text: str
    tree: exp.Query
    relations: tuple[str, ...]


def parse_view(view: ViewDecl, graph: Graph) -> Query:
    """The view's query.

    Raises:
        DeclarationError: PS-DECL-006 (syntax), PS-DECL-015 (unknown parameter), with the place.
    """
    text = name_sessions(quote_at(fill_parameters(view.sql, graph, view.where, f"view {view.name}")))
    tree = _parse(text, view)
    return Query(view, text, tree, relations_read(tree))


def fill_parameters(text: str, graph: Graph, where: Where, what: str = "the declaration") -> str:
    """The text with each `$name` outside of strings and comments replaced by its value as an SQL literal."""
    declared = {p.name: p for p in graph.parameters}
    try:
        tokens = sqlglot.tokenize(text, dialect=DIALECT)
    except TokenError as problem:
        raise DeclarationError(
            "PS-DECL-006",
            f"{what}: the SQL cannot be read",
            where=where,
            expected="SQL whose quotes and comments are closed",
            got=str(problem),
        ) from None
    pieces: list[str] = []
    position = 0
    for sign, name in pairwise(tokens):
        if sign.token_type != TokenType.PARAMETER or sign.text != "$" or name.start != sign.end + 1:
            continue
        parameter = declared.get(name.text)
        if parameter is None:
            raise DeclarationError(
                "PS-DECL-015",
                f"{what}: parameter ${name.text} is not declared",
                where=place_of(where, text, sign.start),
                expected=", ".join(f"${p}" for p in sorted(declared)) or "a declared parameter",
                got=f"${name.text}",
            )
        pieces += [text[position : sign.start], parameter_literal(parameter, graph.values)]
        position = name.end + 1
    return "".join([*pieces, text[position:]])


def quote_at(text: str) -> str:
    """The text with `at` quoted where it is a column: DuckDB reserves the bare word for `AT (VERSION => ...)`."""
    if not _AT.search(text):
        return text
    try:
        tokens = sqlglot.tokenize(text, dialect=DIALECT)
    except TokenError:
        return text
    pieces: list[str] = []
    position = 0
    for number, token in enumerate(tokens):
        following = tokens[number + 1] if number + 1 < len(tokens) else None
        # The text itself is compared: a token of 'at', $$at$$ or E'at' has that text too.
        if text[token.start : token.end + 1].lower() != "at":
            continue
        if following is not None and (following.text.lower() == "time" or following.token_type == TokenType.L_PAREN):
            continue  # AT TIME ZONE, AT (VERSION => ...)
        pieces += [text[position : token.start], f'"{token.text}"']
        position = token.end + 1
    return "".join([*pieces, text[position:]])


def parameter_literal(parameter: ParameterDecl, values: Mapping[str, str]) -> str:
    """The parameter's value as an SQL literal of its type."""
    value = values.get(parameter.name, parameter.default)
    match parameter.type:
        case "int":
            return str(int(value))
        case "decimal":
            return f"CAST({literal(value)} AS DECIMAL(38, 10))"
        case "interval":
            return f"INTERVAL {literal(_interval(value))}"
        case "str":
            return literal(value)


def place_in(where: Where, text: str, line: int, column: int) -> Where:
    """A place in a view's text as a place in the user's file.

    In Python the text is an argument: the line is counted from the call, and the column is that of the text's line.
    """
    if not line or where.whole:
        return where
    if where.column:
        return Where(where.file, where.line + line - 1, column + (where.column - 1 if line == 1 else 0))
    return Where(where.file, where.line + line - 1 if where.line else line, column)


def place_as_written(query: Query, line: int, column: int) -> Where:
    """A place in `query.text` as one in the user's file, without what was put into the line before it."""
    shown, written = query.text.split("\n"), query.view.sql.split("\n")
    if line <= min(len(shown), len(written)):
        before = re.sub(r'"(at)"', r"\1", shown[line - 1][: column - 1], flags=re.IGNORECASE)
        before = before.replace(SESSION_MACRO, "session")
        if written[line - 1].startswith(before):
            column = len(before) + 1
    return place_in(query.view.where, query.text, line, column)


def _interval(value: str) -> str:
    us = round(parse_duration(value).total_seconds() * 1_000_000)
    return f"{us // 1_000_000} seconds" if us % 1_000_000 == 0 else f"{us} microseconds"


def _parse(text: str, view: ViewDecl) -> exp.Query:
    try:
        trees = [tree for tree in sqlglot.parse(text, dialect=DIALECT) if tree is not None]
    except ParseError as problem:
        first = problem.errors[0] if problem.errors else {}
        # sqlglot tells where the word ends.
        line, column = int(first.get("line") or 0), int(first.get("col") or 0)
        column = max(column - len(str(first.get("highlight") or " ")) + 1, min(column, 1))
        raise DeclarationError(
            "PS-DECL-006",
            f"view {view.name}: the SQL cannot be parsed",
            where=place_in(view.where, text, line, column),
            got=_shown(first, problem),
            expected="one SELECT in DuckDB's SQL",
            hint=_instead(first),
        ) from None
    if len(trees) == 1 and isinstance(trees[0], exp.Pivot):
        return exp.select("*", dialect=DIALECT).from_(exp.Subquery(this=trees[0]))
    if len(trees) == 1 and isinstance(trees[0], exp.Values):
        return exp.select("*", dialect=DIALECT).from_(trees[0])
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise DeclarationError(
            "PS-DECL-006",
            f"view {view.name} is not one query",
            where=view.where,
            expected="one SELECT",
            got=f"{len(trees)} statements" if len(trees) != 1 else type(trees[0]).__name__.upper(),
            hint="a view is one query over sources and views; what changes rows is a record of a source",
        )
    return trees[0]


# What DuckDB reads and the planner's parser does not: the text before the place, the place, and what to write instead.
_INSTEAD = (
    (r"\b[xX]$", r"'", "write a blob as '\\x41\\x42'::BLOB"),
    (r"[\w)]\s*$", r"!", "write factorial(n)"),
    (r"'\s*$", r"'", "join strings with ||"),
)


def _shown(first: Mapping[str, object], problem: ParseError) -> str:
    """What stands at the place, and what the parser says of it."""
    described = str(first.get("description") or problem).strip()
    near = str(first.get("highlight") or "").strip()
    return f"{near}: {described}" if near else described


def _instead(first: Mapping[str, object]) -> str:
    before, near = str(first.get("start_context") or ""), str(first.get("highlight") or "")
    for behind, here, hint in _INSTEAD:
        if re.search(behind, before) and re.match(here, near):
            return hint
    return ""


def name_sessions(text: str) -> str:
    """The text with `session(` under a name that the parser takes for a function."""
    if not _SESSION.search(text):
        return text
    try:
        tokens = sqlglot.tokenize(text, dialect=DIALECT)
    except TokenError:
        return text
    pieces: list[str] = []
    position = 0
    for token, following in pairwise(tokens):
        written = text[token.start : token.end + 1].lower()
        if written == "session" and following.token_type == TokenType.L_PAREN:
            pieces += [text[position : token.start], SESSION_MACRO]
            position = token.end + 1
    return "".join([*pieces, text[position:]])


def function_names(node: exp.Func) -> set[str]:
    """The names by which the function may be known to the engine, in lower case."""
    if isinstance(node, exp.Anonymous):
        return {node.name.lower()}
    names = {name.lower() for name in node.sql_names()}
    if isinstance(node, exp.Connector):
        return names  # AND and OR are written between their operands, the first of which may be a call
    rendered = node.sql(DIALECT).split("(", 1)[0].strip().lower()
    return names | {rendered}


def place_of(where: Where, text: str, position: int) -> Where:
    """The place in the user's file of a position in a view's text."""
    line_start = text.rfind("\n", 0, position) + 1
    return place_in(where, text, text.count("\n", 0, position) + 1, position - line_start + 1)


def place_of_word(where: Where, text: str, word: str) -> Where:
    """The place of the first token that is `word`; `where` itself if there is none."""
    tokens = sqlglot.tokenize(text, dialect=DIALECT)
    found = next((t for t in tokens if text[t.start : t.end + 1].strip('"').lower() == word.lower()), None)
    return place_of(where, text, found.start) if found is not None else where
