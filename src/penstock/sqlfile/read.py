"""The statements of an SQL file, turned into the declarations of a `Pipeline`.

A wrong statement becomes an error with file, line and column, and reading goes on with the next one, so that all
mistakes are reported together by `Pipeline.graph()`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from penstock.contract.schema import Schema
from penstock.errors import DeclarationError, Where
from penstock.functions import function
from penstock.pipeline import FunctionDecl, Pipeline
from penstock.sqlfile.columns import Body, duration, read_body
from penstock.sqlfile.words import Cursor, Kind, Mistake, Script

_STATEMENTS = "CREATE STREAM, TABLE, REFERENCE, VIEW, SINK, CLOCK, STEP, FUNCTION or PARAMETER"
_CONTRACT_OPTIONS = {"extra": ("ignore", "dead"), "owner": (), "contract_version": ()}
_BOUND = ("bounded", "unbounded")
_FLAG = ("true", "false")
_Choices = Mapping[str, tuple[str, ...]]
_SOURCE_OPTIONS: dict[str, _Choices] = {
    "stream": {
        "retention": (),
        "max_ahead": (),
        "idle_after": (),
        "correction_horizon": (),
        "transient": _FLAG,
        "default": (),
        "state": _BOUND,
        **_CONTRACT_OPTIONS,
    },
    "table": {"version": (), "max_ahead": (), "default": (), "state": _BOUND, **_CONTRACT_OPTIONS},
    "reference": {"allow_empty": _FLAG, "default": (), **_CONTRACT_OPTIONS},
}
_VIEW_OPTIONS: _Choices = {
    "emit": ("changes", "final"),
    "key": (),
    "state": _BOUND,
    "strategy": ("auto", "incremental", "refresh"),
}
_PARAMETER_TYPES: dict[str, Literal["int", "str", "decimal", "interval"]] = {
    "BIGINT": "int",
    "INTEGER": "int",
    "VARCHAR": "str",
    "DECIMAL": "decimal",
    "INTERVAL": "interval",
}


def read_pipeline(text: str, *, name: str, file: str = "") -> Pipeline:
    """The pipeline that an SQL text declares; its mistakes are raised by `Pipeline.graph()`.

    Args:
        name: the pipeline's name.
        file: named in errors.

    Example:
        >>> pipeline = read_pipeline("CREATE STREAM s (a BIGINT); CREATE VIEW v AS SELECT a FROM s;", name="p")
        >>> pipeline.graph().views[0].sql
        'SELECT a FROM s'
    """
    script = Script(text, file or "<sql>")
    pipeline = Pipeline(name)
    pipeline.where = Where(script.file, 1, 1)
    reader = _Reader(script, pipeline)
    try:
        statements = script.statements()
    except Mistake as mistake:
        reader.report(mistake)
        return pipeline
    for statement in statements:
        try:
            reader.read(statement)
        except Mistake as mistake:
            reader.report(mistake)
    return pipeline


@dataclass(frozen=True)
class _Option:
    value: str
    offset: int


class _Reader:
    def __init__(self, script: Script, pipeline: Pipeline) -> None:
        self._script = script
        self._pipeline = pipeline

    def report(self, mistake: Mistake) -> None:
        self._pipeline.report(
            DeclarationError(
                mistake.code,
                mistake.message,
                where=self._script.where(mistake.offset),
                expected=mistake.expected,
                got=mistake.got,
                hint=mistake.hint,
            )
        )

    def read(self, cursor: Cursor) -> None:
        where = cursor.where
        if not cursor.accept("CREATE"):
            cursor.fail(_STATEMENTS, "queries are named: CREATE VIEW name AS SELECT ...")
        if cursor.at("OR", "REPLACE") or cursor.at("TEMP") or cursor.at("TEMPORARY"):
            cursor.fail(_STATEMENTS, "a file says what the pipeline is; nothing is replaced or temporary")
        readers: dict[str, Callable[[Cursor, Where], None]] = {
            "STREAM": lambda c, w: self._source("stream", c, w),
            "TABLE": lambda c, w: self._source("table", c, w),
            "REFERENCE": lambda c, w: self._source("reference", c, w),
            "VIEW": self._view,
            "SINK": self._sink,
            "CLOCK": self._clock,
            "STEP": self._step,
            "FUNCTION": self._function,
            "PARAMETER": self._parameter,
        }
        for keyword, reader in readers.items():
            if cursor.accept(keyword):
                if cursor.at("IF", "NOT", "EXISTS"):
                    cursor.fail("a name", "IF NOT EXISTS means nothing here: a name is declared once")
                reader(cursor, where)
                return
        word = cursor.peek()
        close = difflib.get_close_matches(word.text.upper() if word else "", readers, 1)
        cursor.fail(_STATEMENTS, f"did you mean CREATE {close[0]}?" if close else "")

    def _source(self, kind: Literal["stream", "table", "reference"], cursor: Cursor, where: Where) -> None:
        name = cursor.name(f"the name of the {kind}")
        body = read_body(cursor)
        for mistake in body.mistakes:
            self.report(mistake)
        options = self._options(cursor, _SOURCE_OPTIONS[kind])
        self._end(cursor)
        self._check_clauses(kind, name, body, where)
        text = {option: found.value for option, found in options.items()}
        schema = Schema(
            name,
            tuple(body.columns),
            tuple(body.checks),
            extra=text.pop("extra", "ignore"),
            owner=text.pop("owner", ""),
            version=text.pop("contract_version", ""),
        )
        values = {option: value == "true" if value in _FLAG else value for option, value in text.items()}
        if body.mistakes:
            # A column that could not be read would only lead to errors about its absence; keep the name known.
            schema = Schema(name, schema.columns)
            body = Body()
        self._declare(kind, name, schema, body, where, values)

    def _declare(
        self, kind: str, name: str, schema: Schema, body: Body, where: Where, values: Mapping[str, str | bool]
    ) -> None:
        given = cast("dict[str, Any]", dict(values))
        match kind:
            case "stream":
                self._pipeline.stream(
                    name,
                    schema,
                    event_time=body.event_time,
                    watermark=body.watermark,
                    unique=body.unique,
                    within=body.within,
                    references=body.references,
                    where=where,
                    **given,
                )
            case "table":
                self._pipeline.table(
                    name,
                    schema,
                    key=body.key,
                    event_time=body.event_time,
                    watermark=body.watermark,
                    references=body.references,
                    where=where,
                    **given,
                )
            case _:
                self._pipeline.reference(name, schema, key=body.key, where=where, **given)

    def _check_clauses(self, kind: str, name: str, body: Body, where: Where) -> None:
        event_time = (body.event_time,) if body.event_time else ()
        wrong: dict[str, list[tuple[str, Collection[str], str]]] = {
            "stream": [("PRIMARY KEY", body.key, "UNIQUE (...) WITHIN INTERVAL '...' drops repeated records")],
            "table": [("UNIQUE", body.unique, "the PRIMARY KEY decides which row is the newest")],
            "reference": [
                ("UNIQUE", body.unique, "write PRIMARY KEY"),
                ("WATERMARK", event_time, "a reference changes as a whole and has no event time"),
                ("REFERENCES", body.references, "only streams and tables are checked against references"),
            ],
        }
        for clause, value, hint in wrong[kind]:
            if value:
                self._pipeline.report(
                    DeclarationError(
                        "PS-DECL-005",
                        f"{kind} {name}: {clause} does not belong to a {kind}",
                        where=where,
                        expected=f"a {kind} without {clause}",
                        got=clause,
                        hint=hint,
                    )
                )

    def _view(self, cursor: Cursor, where: Where) -> None:
        name = cursor.name("the name of the view")
        options = self._options(cursor, _VIEW_OPTIONS)
        cursor.expect("AS", hint="CREATE VIEW name [WITH (emit = 'final', ...)] AS SELECT ...")
        place = cursor.where
        if cursor.done:
            cursor.fail("a query")
        query, _ = cursor.until()
        self._end(cursor)
        given = cast("dict[str, Any]", {option: found.value for option, found in options.items()})
        self._pipeline.view(name, query, where=place, **given)

    def _sink(self, cursor: Cursor, where: Where) -> None:
        name = cursor.name("the name of the sink")
        cursor.expect("FROM", hint="CREATE SINK name FROM view")
        view = cursor.name("the name of a view")
        options = self._options(cursor, {"on_error": ("stop", "dead")})
        self._end(cursor)
        on_error = "dead" if "on_error" in options and options["on_error"].value == "dead" else "stop"
        self._pipeline.sink(name, view=view, on_error=cast('Literal["stop", "dead"]', on_error), where=where)

    def _clock(self, cursor: Cursor, where: Where) -> None:
        name = cursor.name("the name of the clock")
        cursor.expect("EVERY", hint="CREATE CLOCK name EVERY INTERVAL '1 second'")
        period = duration(cursor)
        self._end(cursor)
        self._pipeline.clock(name, period, where=where)

    def _parameter(self, cursor: Cursor, where: Where) -> None:
        name = cursor.name("the name of the parameter")
        word = cursor.take()
        kind = _PARAMETER_TYPES.get(word.text.upper())
        if kind is None:
            expected = ", ".join(_PARAMETER_TYPES)
            raise Mistake("the type of a parameter is unknown", word.start, expected, word.text)
        cursor.expect("DEFAULT", hint=f"CREATE PARAMETER {name} {word.text} DEFAULT value")
        cursor.accept("INTERVAL")
        sign = "-" if cursor.accept("-") else ""
        value = cursor.take()
        if value.kind not in (Kind.STRING, Kind.NUMBER):
            raise Mistake("the default is no value", value.start, "a number or a text in quotes", value.text)
        comment = cursor.string("the comment in quotes") if cursor.accept("COMMENT") else ""
        self._end(cursor)
        self._pipeline.parameter(name, sign + value.text, type=kind, help=comment, where=where)

    def _step(self, cursor: Cursor, where: Where) -> None:
        name = cursor.name("the name of the step")
        cursor.expect("FROM", hint="CREATE STEP name FROM view WITH (key = '...', state = 'module:Class', ...)")
        source = cursor.name("the name of a view or source")
        needed = ("key", "state", "output", "function")
        start = cursor.offset
        options = self._options(cursor, dict.fromkeys((*needed, "time"), ()))
        self._end(cursor)
        missing = [option for option in needed if option not in options]
        if missing:
            raise Mistake("a step lacks options", start, f"WITH ({' = ..., '.join(needed)} = ...)", ", ".join(missing))
        self._pipeline.step(
            name,
            input=source,
            key=options["key"].value,
            state=_imported(options["state"]),
            output=_imported(options["output"]),
            function=_imported(options["function"]),
            time=options["time"].value if "time" in options else None,
            where=where,
        )

    def _function(self, cursor: Cursor, where: Where) -> None:
        name = cursor.name("the name of the function")
        cursor.expect("AS", hint=f"CREATE FUNCTION {name} AS 'module:function'")
        offset = cursor.offset
        option = _Option(cursor.string("'module:function', a Python function"), offset)
        self._end(cursor)
        found = _imported(option)
        declared = replace(found, name=name) if isinstance(found, FunctionDecl) else function(name=name)(found)
        self._pipeline.function(declared, where=where)

    def _options(self, cursor: Cursor, allowed: _Choices) -> dict[str, _Option]:
        """`WITH (name = value, ...)`; a wrong option is reported and left out."""
        options: dict[str, _Option] = {}
        if not cursor.accept("WITH"):
            return options
        cursor.expect("(")
        while True:
            start = cursor.offset
            name = cursor.name("an option").lower()
            cursor.expect("=")
            found = _Option(self._value(cursor), start)
            problem = self._option_problem(name, found, allowed, options)
            if problem is None:
                options[name] = found
            else:
                self.report(problem)
            if not cursor.accept(","):
                break
        cursor.expect(")")
        return options

    @staticmethod
    def _value(cursor: Cursor) -> str:
        if cursor.accept("$"):
            return "$" + cursor.name("the name of a parameter")
        if cursor.at("INTERVAL"):
            return duration(cursor)
        word = cursor.take()
        return word.text.lower() if word.kind is Kind.WORD else word.text

    @staticmethod
    def _option_problem(name: str, found: _Option, allowed: _Choices, options: Mapping[str, _Option]) -> Mistake | None:
        code = "PS-DECL-005"
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, 1)
            hint = f"did you mean {close[0]}?" if close else ""
            return Mistake("an option is unknown", found.offset, ", ".join(allowed), name, hint, code)
        if name in options:
            return Mistake("an option is given twice", found.offset, f"{name} once", name, code=code)
        if allowed[name] and found.value not in allowed[name]:
            expected = " or ".join(f"'{value}'" for value in allowed[name])
            return Mistake(f"the option {name} is wrong", found.offset, expected, found.value, code=code)
        return None

    @staticmethod
    def _end(cursor: Cursor) -> None:
        if not cursor.done:
            cursor.fail("the end of the statement", "statements are separated by semicolons")


def _imported(option: _Option) -> Any:
    """What `module:attribute` names."""
    module, _, attribute = option.value.partition(":")
    try:
        value = importlib.import_module(module) if module and attribute else None
        for part in attribute.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as problem:
        raise Mistake(
            "a Python name cannot be found", option.offset, "module:attribute", str(problem), code="PS-DECL-003"
        ) from None
    return value
