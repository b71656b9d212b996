"""The vectorised check and the slow diagnosis say the same of any bytes."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.formats.few_records import MOST_RECORDS
from tests.examples import examples
from tests.formats.agreement import agree, batch, connection, decoder, judged

EXAMPLES = int(os.environ.get("PENSTOCK_EXAMPLES", "8"))
many = settings(max_examples=examples(EXAMPLES), deadline=None, suppress_health_check=list(HealthCheck))

TOKENS = [
    *("0", "-0", "1", "7", "-1", "12", "99", "100", "-100", "1000", "1234567890123457000", "999", "1e2", "1E2", "12e2"),
    *("1e18", "1234567890123457e3", "1.0", "1.5", "0.1", "99.6", "1e-7", "1e-9", "1e400", "-1e400", "1e39", "1e5"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "18446744073709551616", "1" + "0" * 37),
    *("1" * 45, "0.1000000000000000055", "1.50", "1.25", "99999999.99", "99999999.995", "100000000", "12345678.5"),
    *("NaN", "nan", "Infinity", "-Infinity", "inf", "-inf", "01", "+1", "1.", ".5", "-", "0x1", "1_0", "true", "false"),
    *(
        "null",
        '""',
        '"a"',
        '"image"',
        '"video"',
        '"text"',
        '"1"',
        '"true"',
        '"12.50"',
        '"1.5"',
        '"-0"',
        '"nan"',
        '"inf"',
    ),
    *(
        '"\\u0000"',
        '"\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\u0061"',
        '"\\/"',
        '"\\""',
        '"a\\": b"',
        '", \\"x"',
        '"é"',
        '"[1]"',
    ),
    *('"12345678-1234-1234-1234-123456789abc"', '"12345678-1234-1234-1234-123456789ABC"', '"a\\nb"', '"{}"', "'a'"),
    *('"1234567812341234-1234-1234-56789abc"', '"123456781234123412341234-5678-9ab-c"', '"\x7f"', '"a\tb"', '"NaN,]"'),
    *('"2026-01-01T00:00:00"', '"2026-01-01 00:00:00Z"', '"2026-01-01T00:00:00.123456+05:30"', '"2026-01-01T24:00:00"'),
    *(
        '"2026-02-30T00:00:00Z"',
        '"0001-01-01T00:00:00+01:00"',
        '"9999-12-31T23:59:59-01:00"',
        '"2026-01-01"',
        '"0000-01-01"',
    ),
    *(
        '"2026-01-01T00:00"',
        '"2026-01-01T00:00:60"',
        '"2026-01-01T00:00:00.1234567"',
        '"2030-01-01T00:00:00"',
        '"infinity"',
    ),
    *(
        '"2024-02-29"',
        '"2023-02-29"',
        '"12:34"',
        '"23:59:59.999999"',
        '"24:00:00"',
        '"12:34:56.1"',
        '"-P1DT2H"',
        '"P"',
        '"PT"',
    ),
    *(
        '"PT1.5S"',
        '"PT99999999999.999999S"',
        '"P999999D"',
        '"P1DT"',
        '"YWI="',
        '"YWI"',
        '"YWJ="',
        '"YWJjZGVmZ2hpamtsbW5v"',
    ),
    *(
        "[]",
        "[1]",
        "[1,2,3,4]",
        "[1,null]",
        '["a"]',
        "[1,]",
        "[NaN]",
        "[1.0]",
        "{}",
        '{"a":1}',
        '{"a":1,"a":2}',
        '{"a":null}',
    ),
    *(
        '{"a":1,"b":["x",null]}',
        '{"a":1,"b":[1]}',
        '{"x":1.5,"y":2}',
        '{"x":NaN}',
        '{"x":1e400}',
        '{"x":null}',
        '{"":1}',
    ),
    *(
        '{"a":1,}',
        '{"a":1,"c":{"d":[{}]}}',
        '{"\\u0061":1}',
        '{"a\\u0000":1}',
        "[[1]]",
        "[" * 40 + "]" * 40,
        '{"b":[]}',
    ),
]
NAMES = [
    "i",
    "n",
    "s",
    "u",
    "k",
    "b",
    "at",
    "f",
    "g",
    "d",
    "h",
    "y",
    "t",
    "p",
    "x",
    "z",
    "l",
    "m",
    "q",
    "I",
    "_op",
    "_epoch",
]
GOOD = {
    "Flat": {
        "i": "5",
        "n": "null",
        "s": '"abc"',
        "u": '"12345678-1234-1234-1234-123456789abc"',
        "k": '"image"',
        "b": "true",
    },
    "Scalars": {"at": '"2026-01-01T00:00:00"', "f": "1.5", "d": '"12.50"', "p": '"PT1.5S"', "z": "1"},
    "Measured": {"b": "true", "f": "1.5", "d": '"12.50"', "y": '"2024-02-29"', "h": "5", "s": '"abc"'},
    "Common": {"i": "5", "s": '"abc"', "k": '"image"', "at": '"2026-01-01T00:00:00"', "d": '"12.50"', "z": "1"},
    "Nested": {"l": "[1,2]", "m": '{"x":1.5}', "q": '{"a":1,"b":["x",null]}'},
}


@st.composite
def records(draw: st.DrawFn, name: str) -> bytes:
    """A good record with some fields replaced, dropped, repeated or added, in one of several layouts."""
    fields = list(GOOD[name].items())
    for _ in range(draw(st.integers(0, 3))):
        match draw(st.integers(0, 4)):
            case 0 | 1:
                position = draw(st.integers(0, len(fields) - 1)) if fields else 0
                if fields:
                    fields[position] = (fields[position][0], draw(st.sampled_from(TOKENS)))
            case 2 if fields:
                fields.pop(draw(st.integers(0, len(fields) - 1)))
            case 3:
                fields.append((draw(st.sampled_from([*GOOD[name], *NAMES])), draw(st.sampled_from(TOKENS))))
            case _:
                fields = draw(st.permutations(fields))
    comma, colon = draw(st.sampled_from([(",", ":"), (", ", ": "), (",\n ", " : "), (",", ": "), (", ", ":")]))
    head, tail = draw(
        st.sampled_from([("{", "}")] * 6 + [(" {", "} "), ("{", ",}"), ("{", "}x"), ("[{", "}]"), ("\ufeff{", "}")])
    )
    return (head + comma.join(f'"{key}"{colon}{value}' for key, value in fields) + tail).encode()


@pytest.mark.parametrize("name", list(GOOD))
def test_records_near_the_contract(name: str) -> None:
    @many
    @given(st.lists(records(name), min_size=1, max_size=20))
    def check(values: list[bytes]) -> None:
        agree(decoder(name), values)

    check()


@pytest.mark.parametrize("name", list(GOOD))
def test_every_token_in_every_field(name: str) -> None:
    values = []
    for field in (*GOOD[name], *[n for n in NAMES if name != "Flat"]):
        for token in TOKENS:
            fields = GOOD[name] | {field: token}
            for comma, colon in ((",", ":"), (", ", ": ")):
                values.append(("{" + comma.join(f'"{k}"{colon}{v}' for k, v in fields.items()) + "}").encode())
    verdicts = agree(decoder(name), values)
    assert None in verdicts
    assert any(verdicts)


@many
@given(st.lists(st.one_of(st.binary(max_size=60), st.none()), min_size=1, max_size=20))
def test_any_bytes(values: list[bytes | None]) -> None:
    for name in GOOD:
        agree(decoder(name), values)


@many
@given(
    st.lists(
        st.tuples(records("Flat"), st.integers(0, 200), st.integers(0, 255), st.integers(0, 2)), min_size=1, max_size=20
    )
)
def test_damaged_bytes(damages: list[tuple[bytes, int, int, int]]) -> None:
    values = []
    for value, position, byte, how in damages:
        cut = position % (len(value) + 1)
        values.append(value[:cut] + (bytes([byte]) if how else b"") + value[cut + (how < 2) :])
    agree(decoder("Flat"), values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@many
@given(st.lists(st.tuples(JSON, st.booleans()), min_size=1, max_size=10))
def test_any_json(documents: list[tuple[object, bool]]) -> None:
    values = []
    for document, ascii_only in documents:
        for field in ("i", "s", "n", "other"):
            record = {"i": 5, "s": "abc", "k": "text"} | {field: document}
            values.append(json.dumps(record, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    agree(decoder("Flat"), values)


OPEN_TOKENS = ['"c"', '"u"', '"d"', '"r"', '"x"', "null", "1", '"c","op":"d"']


@st.composite
def envelopes(draw: st.DrawFn) -> bytes:
    row = st.one_of(records("Flat").map(lambda value: value.decode()), st.sampled_from(["null", "1", "[]"]))
    inner = f'{{"before":{draw(row)},"after":{draw(row)},"op":{draw(st.sampled_from(OPEN_TOKENS))}}}'
    if draw(st.booleans()):
        inner = f'{{"schema":{draw(st.sampled_from(TOKENS))},"payload":{inner}}}'
    return inner.encode()


@pytest.mark.parametrize("name", ["Flat", "Common"])
@pytest.mark.parametrize("key", [(), ("i",), ("n", "s")])
def test_changes_of_tables(key: tuple[str, ...], name: str) -> None:
    optional = st.one_of(st.none(), records(name))

    @many
    @given(st.lists(st.tuples(optional, optional, envelopes()), min_size=1, max_size=10))
    def check(changes: list[tuple[bytes | None, bytes | None, bytes]]) -> None:
        keys = [change[1] for change in changes]
        agree(decoder(name, "upsert", "table", key), [change[0] for change in changes], keys)
        agree(decoder(name, "changelog", "table", key), [change[0] for change in changes])
        agree(decoder(name, "debezium", "table", key), [change[2] for change in changes], keys)

    check()


SHORTER = {
    "Flat": [
        '"s":123,"i":5,"k":"text"',
        '"s":true,"i":5,"k":"text"',
        '"s":[1],"i":5,"k":"text"',
        '"i":1e15,"s":"a","k":"text"',
    ],
    "Measured": ['"b":true,"f":1e15', '"b":true,"f":15e21', '"b":true,"d":1e5', '"b":true,"z":1e2', '"b":true,"s":-1'],
}


@pytest.mark.parametrize("name", list(SHORTER))
def test_what_a_short_spelling_saves_hides_nothing(name: str) -> None:
    values = []
    for fields in SHORTER[name]:
        first = fields.split(",")[0]
        for more in ("", f",{first}", ',"x":1'):
            values += [f"{{{fields}{more}{' ' * blanks}}}".encode() for blanks in range(16)]
    agree(decoder(name), values)


def test_optional_values_that_are_missing_are_proven_too() -> None:
    judge = decoder("Measured")
    assert [row["_ps_ok"] for row in judged(judge, batch([b'{"b":true,"f":1.5}', b'{"b":false}']), guarded=False)] == [
        True
    ] * 2


def test_few_records_are_proven_in_python_and_given_as_duckdb_gives_them() -> None:
    values = [
        b'{"i":5,"s":"abc","k":"image","at":"2026-01-01T00:00:00+01:00","f":0.1,"d":"12.50","y":"2024-02-29",'
        b'"t":"12:34","b":true,"x":"YWI=","z":255}',
        b'{"other":1,"i":-5,"s":"\xc3\xa9","k":"text","at":"2026-12-31T00:00:00.123456","d":-7.5}',
    ]
    judge = decoder("Common")
    few, given = judge.few([batch(values)], columns=None), batch(values)
    assert few is not None
    connection().register("raw", judge.stage([given]))
    by_sql = connection().sql(judge.select("raw", guarded=True)).to_arrow_table().select(few.column_names)
    assert few.schema.equals(by_sql.schema)
    assert few.to_pylist() == by_sql.to_pylist()
    assert few.column("_ps_extra").to_pylist() == [False, True]
    only = judge.few([given], columns={"s"})
    assert only is not None
    assert only.column_names == ["_ps_p", "_ps_o", "s", "_ps_at", "_ps_extra", "_ps_ok"]
    # one that is broken, too far ahead or too many leaves all of them to the statement
    assert judge.few([batch([*values, b"{}"])], columns=None) is None
    assert judge.few([batch([values[0].replace(b"2026-", b"2028-")])], columns=None) is None
    assert judge.few([batch(values[:1] * (MOST_RECORDS + 1))], columns=None) is None
    # so do checks in SQL and types that are not the same everywhere
    assert decoder("Flat").few([batch([b'{"i":5,"s":"abc","k":"image"}'])], columns=None) is None
    assert decoder("Measured").few([batch([b'{"b":true}'])], columns=None) is None
