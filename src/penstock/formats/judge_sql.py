"""The one SELECT that parses and judges JSON records.

A lenient `from_json` gives the values. Whether they may be trusted is shown in one of two ways:

*By length.* Every field of an object costs at least `"name":` + its canonical text + one comma or brace. If the whole
record is exactly as long as the sum of these for the values that the parse gave, then nothing else is in it: no unknown
or repeated field, no white space, no escape, no other spelling. This needs that no spelling of a value is shorter than
its canonical text. Texts: only an unquoted number, literal or container is shorter (2 quotes less), and it starts with
one of `-0-9tfn{[NIi`; no rule but a pattern or choice known to exclude these is trusted to. Integers: only an exponent
is as short, and then the value is a multiple of 100, or (beyond 2^53, where the parse goes through a double) a multiple
of 2, and beyond 2^60 of 256. Fractions: only an exponent is shorter, and then the canonical text has one too or ends in
`.0`. In these cases the record must be the very text that its values make in the order of the contract: so it has
`{"name":VALUE` or `,"name":VALUE`, and a quote after a brace or comma can only open a string, so that this is the field
itself (names that are no identifiers are not trusted with this).
Values that are neither integers nor texts are kept as JSON by the parse and pass the grammar of their type as well.
The same text with `: ` and `, ` as separators is measured after these blanks are removed: one inside a string is
preceded or followed by an escaped quote, which costs as much as the blank.
Contracts with nested columns or defaults always go the second way.

*By grammar*, only for records that fail the first: what DuckDB's parser forgives (NaN, trailing commas) is looked for,
field names are counted, and every value's own text is checked (types_sql).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from penstock.contract.patterns import IP, UUID
from penstock.contract.schema import Column, Schema
from penstock.contract.types import DecimalType, IntegerType, parse_type, quote
from penstock.formats.provable import is_token, proven_rules
from penstock.formats.rules_sql import rule_sql
from penstock.formats.tokens_sql import token_check, token_value
from penstock.formats.types_sql import check, children, json_struct, literal, typed

CHANGE_FIELDS = ("_op", "_epoch", "_seq", "_correction")
OPERATIONS = ("+I", "-U", "+U", "-D")
_FORGIVEN = "(?i)nan|inf|,[ \\t\\r\\n]*[}\\]]"
_STRING = '(?s)"(?:[^"\\\\]|\\\\.)*"'
_UNSAFE_FIRST = "-0123456789tfn{[NIi"


@dataclass(frozen=True)
class Judgement:
    """What a record is judged by: the contract and the source's options."""

    schema: Schema
    kind: str
    key: tuple[str, ...]
    event_time: str | None
    max_ahead: timedelta

    @property
    def nested(self) -> bool:
        return any(children(column) for column in self.schema.columns)


def judge_select(judgement: Judgement, records: str, *, guarded: bool, columns: Collection[str] | None = None) -> str:
    """SQL over `records` (_ps_p, _ps_o, _ps_t, _ps_j JSON text, _ps_d the operation, or NULL for the record's own).

    columns: those of the contract to give; all are judged.
    """
    proven = not guarded and _measurable(judgement)
    values = _measured_select(judgement, records) if proven else _values_select(judgement, records, guarded=guarded)
    return _judged(judgement, values, _column_conditions(judgement), guarded=guarded, columns=columns)


def _judged(
    judgement: Judgement, values: str, conditions: Sequence[str], *, guarded: bool, columns: Collection[str] | None
) -> str:
    wanted = [name for name in judgement.schema.names if columns is None or name in columns]
    at = _event_time(judgement, guarded=guarded)
    timed = f"SELECT *, {at} AS _ps_at FROM ({values})"
    head = ", ".join(["_ps_p", "_ps_o", "_ps_t", "_ps_op", *map(quote, wanted), "_ps_at", "_ps_extra"])
    return f"SELECT {head}, {_verdict(judgement, conditions, guarded=guarded)} AS _ps_ok FROM ({timed})"


def proven_select(judgement: Judgement, proven: str, *, guarded: bool, columns: Collection[str] | None = None) -> str:
    """The same relation as `judge_select`, over rows that the compiled kernel has proven to be what the contract says
    but for the rules that it does not know. They are in the columns of `proven_columns`.

    proven: _ps_p, _ps_o, _ps_t and these columns (tokens as JSON text, narrow integers and booleans as BIGINT).
    """
    values, shapes = [], []
    given = proven_columns(judgement, columns)
    for column in judgement.schema.columns:
        name = quote(column.name)
        if column.name not in given:
            continue
        if is_token(column):
            shapes.append(f"({name} IS NULL OR {token_check(column, name)})")
            values.append(f"CASE WHEN {name} IS NOT NULL THEN {token_value(column, name)} END AS {name}")
        else:
            values.append(name if column.type in ("VARCHAR", "BIGINT") else f"CAST({name} AS {column.type}) AS {name}")
    shape = f"CASE WHEN {' AND '.join(shapes)} THEN true ELSE false END" if shapes else "true"
    head = ", ".join(["SELECT _ps_p, _ps_o, _ps_t, '+I' AS _ps_op", *values, "false AS _ps_extra"])
    conditions = [
        f"coalesce({rule_sql(column, rule)}, true)"
        for column in judgement.schema.columns
        for rule in column.rules
        if rule not in proven_rules(column)
    ]
    rows = f"{head}, {shape} AS _ps_shape FROM {proven}"
    return _judged(judgement, rows, conditions, guarded=guarded, columns=columns)


def proven_columns(judgement: Judgement, columns: Collection[str] | None) -> tuple[str, ...]:
    """The columns that `proven_select` needs from the kernel to give `columns`."""
    named = {column.name for column in named_columns(judgement)}
    return tuple(
        column.name
        for column in judgement.schema.columns
        if columns is None
        or column.name in columns
        or column.name in named
        or is_token(column)
        or set(column.rules) - set(proven_rules(column))
    )


Given = Sequence[tuple[Column, object]]


def explain_select(judgement: Judgement, records: Sequence[tuple[datetime | None, Given]]) -> str:
    """For records whose fields are right: the event time, whether it is too far ahead, and every row check, in order.

    records: the append time, and the columns that the expressions name with their values (the same of each record).
    Judging the records' text once more would be as right, but planning that takes a hundred times as long. All values
    stand in one literal, for each literal is planned on its own; for parameters, DuckDB looks for libraries of Python,
    in vain and each time.
    """
    columns = [column for column, _ in records[0][1]]
    rows = [
        [number, None if append_time is None else append_time.isoformat(" "), *(_text(value) for _, value in given)]
        for number, (append_time, given) in enumerate(records)
    ]
    texts = f"SELECT unnest(from_json({literal(json.dumps(rows, ensure_ascii=False))}, '[[\"VARCHAR\"]]')) AS v"
    values = "".join(
        f", {_from_text(column, f'v[{place}]')} AS {quote(column.name)}" for place, column in enumerate(columns, 3)
    )
    record = f"SELECT v[1]::BIGINT AS _ps_n, v[2]::TIMESTAMP AS _ps_t, true AS _ps_shape{values} FROM ({texts})"
    timed = f"SELECT *, {_event_time(judgement, guarded=True)} AS _ps_at FROM ({record})"
    return f"SELECT {_explained(judgement)} FROM ({timed}) ORDER BY _ps_n"


def _text(value: object) -> str | None:
    match value:
        case None:
            return None
        case bytes():
            return value.hex()
        case timedelta():
            return str(value // timedelta(microseconds=1))
        case Decimal():
            return f"{value:f}"
    return str(value)


def _from_text(column: Column, text: str) -> str:
    match column.type:
        case "BLOB":
            return f"from_hex({text})"
        case "INTERVAL":
            return f"to_microseconds({text}::BIGINT)"
    return f"{text}::{column.type}"


def explain_text_select(judgement: Judgement, records: str) -> str:
    """The same from the text of records, for nested columns that no parameter can carry."""
    values = _values_select(judgement, records, guarded=True)
    timed = f"SELECT *, {_event_time(judgement, guarded=True)} AS _ps_at FROM ({values})"
    return f"SELECT {_explained(judgement)} FROM ({timed})"


def _explained(judgement: Judgement) -> str:
    checks = "".join(f", TRY(coalesce(({c.sql})::BOOLEAN, true))" for c in judgement.schema.checks)
    return f"_ps_at, {_near(judgement)}{checks}"


def named_columns(judgement: Judgement) -> tuple[Column, ...]:
    """The columns whose names occur in the expressions (perhaps inside a text or another word: then one too many)."""
    expressions = " ".join([judgement.event_time or "", *(check.sql for check in judgement.schema.checks)]).lower()
    return tuple(column for column in judgement.schema.columns if column.name.lower() in expressions)


def _measured_select(judgement: Judgement, records: str) -> str:
    """The values of records that are all proven by length; an error where one is not.

    The grammar of the others takes most of a small epoch just to be planned, and most epochs have none of them.
    """
    values = ", ".join(f"{_value(column)} AS {quote(column.name)}" for column in judgement.schema.columns)
    refused = "error('not proven by length' || left(_ps_j, 0))"
    shape = f"CASE WHEN {_by_length(judgement)} THEN true ELSE {refused} END AS _ps_shape"
    head = "SELECT _ps_p, _ps_o, _ps_t, coalesce(_ps_d, '+I') AS _ps_op"
    return f"{head}, {values}, false AS _ps_extra, {shape} FROM ({_parsed(judgement, records, guarded=False)})"


def _parsed(judgement: Judgement, records: str, *, guarded: bool) -> str:
    parse = f"from_json(_ps_j, {_lenient(judgement.schema.columns)})"
    parsed = f"CASE WHEN json_valid(_ps_j) THEN {parse} END" if guarded else parse
    return f"SELECT *, {parsed} AS _ps_s, {_compact(judgement)} AS _ps_c FROM {records}"


def _values_select(judgement: Judgement, records: str, *, guarded: bool) -> str:
    columns = judgement.schema.columns
    lenient = _parsed(judgement, records, guarded=guarded)
    measured = f"SELECT *, {_by_length(judgement)} AS _ps_fast FROM ({lenient})"
    every = json_struct((Column("_op", "VARCHAR"), *columns))
    doubted = "CASE WHEN NOT _ps_fast THEN CASE WHEN json_valid(_ps_j) THEN"
    texts = (
        f"SELECT *, {doubted} from_json(_ps_j, {every}) END END AS _ps_x, "
        f"{doubted} json_keys(_ps_j) END END AS _ps_k FROM ({measured})"
    )
    known = ", ".join(literal(name) for name in (*judgement.schema.names, *CHANGE_FIELDS))
    extra = f"coalesce(len(list_filter(_ps_k, lambda _ps_n: _ps_n NOT IN ({known}))) > 0, false)"
    operation = "CASE WHEN _ps_fast THEN coalesce(_ps_d, '+I') ELSE coalesce(_ps_d, _ps_x._op->>'$', '+I') END"
    operated = f"SELECT *, {operation} AS _ps_op FROM ({texts})"
    values = ", ".join(f"{_value(column)} AS {quote(column.name)}" for column in columns)
    # a record that is no object has no field names: it has no unknown ones either
    return (
        f"SELECT _ps_p, _ps_o, _ps_t, _ps_op, {values}, "
        f"CASE WHEN _ps_fast THEN false ELSE {extra} END AS _ps_extra, "
        f"CASE WHEN _ps_fast THEN true ELSE {_by_grammar(judgement)} END AS _ps_shape FROM ({operated})"
    )


def _lenient(columns: Sequence[Column]) -> str:
    names = {column.name: column.type if _direct(column) else "JSON" for column in columns}
    return literal(json.dumps(names, ensure_ascii=False))


def _direct(column: Column) -> bool:
    return isinstance(parse_type(column.type), IntegerType) or column.type == "VARCHAR"


def _value(column: Column) -> str:
    field = f"_ps_s.{quote(column.name)}"
    value = field if _direct(column) else f"CASE WHEN {field} IS NOT NULL THEN {typed(column, field)} END"
    if not column.default:
        return value
    missing = f"NOT _ps_fast AND {field} IS NULL AND NOT list_contains(_ps_k, {literal(column.name)})"
    default = typed(column, f"{literal(column.default)}::JSON")
    return f"CASE WHEN {missing} THEN {default} ELSE {value} END"


# -- by length ---------------------------------------------------------------------------------------------------------


def _by_length(judgement: Judgement) -> str:
    columns = judgement.schema.columns
    if not _measurable(judgement):
        return "false"
    return _measured(columns, "_ps_c")


def _measurable(judgement: Judgement) -> bool:
    return not judgement.nested and all(c.name.isidentifier() and not c.default for c in judgement.schema.columns)


def _compact(judgement: Judgement) -> str:
    """The record without the blanks that many writers put after colons and commas (seen at the first field)."""
    if not _measurable(judgement):
        return "_ps_j"
    squeezed = "replace(replace(_ps_j, '\": ', '\":'), ', \"', ',\"')"
    blank = literal(f"{{{_name(judgement.schema.columns[0])}: ")
    return f"CASE WHEN starts_with(_ps_j, {blank}) THEN {squeezed} ELSE _ps_j END"


def _measured(columns: Sequence[Column], record: str) -> str:
    lengths = [_length(column, record) for column in columns]
    fixed = 1 + sum(_overhead(column) for column in columns if not column.nullable)
    same = f"strlen({record}) = {fixed} + {' + '.join(lengths)}"
    checks = [f"({_field(c)} IS NULL OR {check(c, _field(c))})" for c in columns if not _direct(c)]
    safe = [f"coalesce({condition}, true)" if c.nullable else condition for c in columns for condition in _safe(c)]
    if safe:
        # one comparison for all, for the planning of one for each would take longer than a small epoch
        checks.append(f"CASE WHEN {' AND '.join(safe)} THEN true ELSE {record} = {_rebuilt(columns)} END")
    # a record that is no object gives no values: its length is unknown, unless no value is required
    opened = [f"starts_with({record}, '{{')"] if all(column.nullable for column in columns) else []
    return f"CASE WHEN {' AND '.join([same, *opened, *checks])} THEN true ELSE false END"


def _field(column: Column) -> str:
    return f"_ps_s.{quote(column.name)}"


def _rebuilt(columns: Sequence[Column]) -> str:
    """The compact record in the order of the contract, without the columns that are null (if the first is not)."""
    parts, pending = [], ""
    for position, column in enumerate(columns):
        label = f"{',' if position else '{'}{_name(column)}:"
        mark = '"' if column.type == "VARCHAR" else ""
        if column.nullable:
            parts.append(literal(pending))
            parts.append(f"coalesce({literal(label + mark)} || {_field(column)}::VARCHAR || {literal(mark)}, '')")
            pending = ""
        else:
            parts += [literal(pending + label + mark), f"{_field(column)}::VARCHAR"]
            pending = mark
    return f"concat({', '.join([*parts, literal(pending + '}')])})"


def _name(column: Column) -> str:
    return json.dumps(column.name, ensure_ascii=False)


def _overhead(column: Column) -> int:
    return len(_name(column).encode()) + 2


def _length(column: Column, record: str) -> str:
    field = f"_ps_s.{quote(column.name)}"
    if column.type == "VARCHAR":
        length = f"strlen({field}) + 2"
    elif isinstance(parse_type(column.type), IntegerType):
        length = f"{_digits(field)}"
    else:
        length = f"strlen({field}::VARCHAR)"
    if not column.nullable:
        return f"({length})"
    null = f"CASE WHEN {_occurs(column, literal('null'), record)} THEN {_overhead(column) + 4} ELSE 0 END"
    return f"(CASE WHEN {field} IS NULL THEN {null} ELSE {length} + {_overhead(column)} END)"


def _digits(field: str) -> str:
    """The length of an integer's text; the lengths of times in ms and ns need no text."""
    usual = ((13, 10**12, 10**13 - 1), (19, 10**18, 2**63 - 1))
    cases = " ".join(f"WHEN {field} BETWEEN {low} AND {high} THEN {length}" for length, low, high in usual)
    return f"CASE {cases} ELSE strlen({field}::VARCHAR) END"


def _occurs(column: Column, text: str, record: str) -> str:
    after_comma, after_brace = literal(f",{_name(column)}:"), literal(f"{{{_name(column)}:")
    return f"(contains({record}, {after_comma} || {text}) OR starts_with({record}, {after_brace} || {text}))"


def _safe(column: Column) -> list[str]:
    """The condition under which a value has no spelling that is shorter than its text; none where no value has one."""
    field, kind = _field(column), parse_type(column.type)
    if column.type == "VARCHAR":
        if _never_bare(column):
            return []
        # two dots or a colon after a digit: an address, a time, a version, but no number
        no_number = f"({field}[1] BETWEEN '0' AND '9' AND ({field} LIKE '%.%.%' OR contains({field}, ':')))"
        return [f"({no_number} OR NOT contains({literal(_UNSAFE_FIRST)}, {field}[1]) OR {field} = '')"]
    if isinstance(kind, IntegerType):
        return [_unlike_exponent(field) if kind.highest < 2**63 else f"{field} IS NULL"]
    if isinstance(kind, DecimalType) or column.type in ("DOUBLE", "FLOAT"):
        text = f"{field}::VARCHAR"
        return [f"(starts_with({text}, '\"') OR NOT (contains(lower({text}), 'e') OR suffix({text}, '.0')))"]
    return []


def _unlike_exponent(field: str) -> str:
    # some that are safe are left out: every operation here is planned in each epoch, once per column
    doubtful = f"{field} NOT BETWEEN 9007199254740992 AND 1152921504606846975 AND {field} > -9007199254740992"
    return f"({field} = 0 OR ({field} % 100 <> 0 AND {field} % 256 <> 0 AND {doubtful}))"


def _never_bare(column: Column) -> bool:
    """Whether no value that keeps the column's rules could be the text of a bare JSON number, literal or container."""
    for rule in column.rules:
        if rule.name == "one_of" and isinstance(rule.argument, tuple):
            return all(str(value)[:1] not in _UNSAFE_FIRST or _is_word(str(value)) for value in rule.argument)
        if rule.name == "pattern" and rule.argument in (UUID, IP):
            return True
    return False


def _is_word(text: str) -> bool:
    return text.isascii() and text.isalpha() and text.lower() not in ("true", "false", "null", "nan", "inf", "infinity")


# -- by grammar --------------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """A condition: the JSON text has nothing that DuckDB's parser forgives."""
    masked = f"regexp_replace({text}, {literal(_STRING)}, '\"\"', 'g')"
    suspicious = f"regexp_matches({text}, {literal(_FORGIVEN)})"
    return f"(CASE WHEN {suspicious} THEN NOT regexp_matches({masked}, {literal(_FORGIVEN)}) ELSE true END)"


def _by_grammar(judgement: Judgement) -> str:
    parts = ["len(_ps_k) = len(list_distinct(_ps_k))", clean("_ps_j"), _operation_allowed(judgement)]
    for column in judgement.schema.columns:
        field = f"_ps_x.{quote(column.name)}"
        parts.append(f"CASE WHEN {field} IS NULL THEN true ELSE {check(column, field)} END")
    body = f"coalesce({' AND '.join(parts)}, false)"
    judged = f"CASE WHEN json_type(_ps_j) = 'OBJECT' THEN {body} ELSE false END"
    return f"CASE WHEN json_valid(_ps_j) THEN {judged} ELSE false END"


def _operation_allowed(judgement: Judgement) -> str:
    allowed = ("+I", "+U") if judgement.kind != "table" else OPERATIONS
    texts = ", ".join(literal(name) for name in allowed)
    return f"_ps_op IN ({texts}) AND (_ps_x._op IS NULL OR starts_with(_ps_x._op::VARCHAR, '\"'))"


# -- the verdict -------------------------------------------------------------------------------------------------------


def _event_time(judgement: Judgement, *, guarded: bool) -> str:
    if judgement.event_time is None:
        return "NULL::TIMESTAMP"
    # a bare column name may be a word of SQL, such as `at`
    plain = judgement.schema.column(judgement.event_time)
    value = f"CAST(({quote(plain.name) if plain else judgement.event_time}) AS TIMESTAMP)"
    if guarded:
        value = f"TRY({value})"
    return f"CASE WHEN _ps_shape THEN {value} END"


def _near(judgement: Judgement) -> str:
    us = judgement.max_ahead // timedelta(microseconds=1)
    return f"coalesce(epoch_us(_ps_at) - epoch_us(_ps_t) <= {us}, true)"


def _column_conditions(judgement: Judgement) -> list[str]:
    deletes = judgement.kind == "table" and bool(judgement.key)
    conditions = []
    for column in judgement.schema.columns:
        if not column.nullable or column.name in judgement.key:
            given = f"{quote(column.name)} IS NOT NULL"
            whole = deletes and column.name not in judgement.key
            conditions.append(f"({given} OR _ps_op = '-D')" if whole else given)
        rules = [rule_sql(column, rule) for rule in column.rules]
        # a null was refused just above, where none may be: only the others need to let it pass
        present = not column.nullable and not deletes
        conditions.extend(rules if present else (f"coalesce({rule}, true)" for rule in rules))
    return conditions


def _verdict(judgement: Judgement, conditions: Sequence[str], *, guarded: bool) -> str:
    deletes = judgement.kind == "table" and bool(judgement.key)
    parts = ["_ps_shape", *conditions]
    if judgement.schema.extra == "dead":
        parts.append("NOT _ps_extra")
    for row_check in judgement.schema.checks:
        condition = f"coalesce(({row_check.sql})::BOOLEAN, true)"
        parts.append(f"CASE WHEN _ps_shape THEN {f'TRY({condition})' if guarded else condition} ELSE false END")
    if judgement.event_time is not None:
        known = "(_ps_at IS NOT NULL OR _ps_op = '-D')" if deletes else "_ps_at IS NOT NULL"
        parts += [known, _near(judgement)]
    # within CASE the conditions narrow the rows that the next one looks at, and NULL is false
    return f"CASE WHEN {' AND '.join(parts)} THEN true ELSE false END"
