"""`multiple_of`: exact for decimals and integers, within a rounding for doubles; SQL and diagnosis agree."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contract.schema import Column, Rule, Schema
from penstock.formats.decode import decoder_for
from tests.examples import examples
from tests.formats.agreement import agree


def multiples(kind: str, step: float, values: list[str]) -> list[bool]:
    """Which of the JSON texts are accepted, by both judges alike."""
    schema = Schema("Steps", (Column("d", kind, rules=(Rule("multiple_of", step),)),))
    verdicts = agree(decoder_for(schema, "json"), [f'{{"d":{value}}}'.encode() for value in values])
    return [verdict is None for verdict in verdicts]


@pytest.mark.parametrize(
    ("kind", "step", "right", "wrong"),
    [
        ("DECIMAL(10,2)", 0.1, ['"0.30"', '"0.70"', "0.3", '"-0.10"', "0"], ['"0.35"', '"0.01"']),
        ("DECIMAL(10,2)", 0.005, ['"0.01"', '"12345678.99"'], []),
        (
            "DECIMAL(38,0)",
            7,
            ['"12345678901234567890123456789012345676"'],
            ['"12345678901234567890123456789012345677"'],
        ),
        ("DOUBLE", 0.1, ["0.3", "0.7", "-1.1", "0", "123456.7"], ["0.35", "0.05", "123456.75"]),
        ("DOUBLE", 0.25, ["1e300", "0.75"], ["0.8"]),
        ("FLOAT", 0.1, ["0.3", "0.7"], ["0.35"]),
        ("BIGINT", 3, ["9223372036854775806", "-3", "0"], ["9223372036854775807", "1"]),
        ("BIGINT", 0.5, ["1", "7"], []),
    ],
)
def test_known_multiples(kind: str, step: float, right: list[str], wrong: list[str]) -> None:
    assert multiples(kind, step, right + wrong) == [True] * len(right) + [False] * len(wrong)


@settings(max_examples=examples(40), deadline=None)
@given(
    st.sampled_from(["DOUBLE", "FLOAT", "DECIMAL(10,2)", "DECIMAL(38,10)", "DECIMAL(38,0)", "INTEGER", "UBIGINT"]),
    st.sampled_from([0.1, 0.5, 3, 0.25, 7, 0.005, 1e-7, 100]),
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=20),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5),
)
def test_both_judges_agree(kind: str, step: float, counts: list[int], others: list[float]) -> None:
    texts = [json.dumps(value) for count in counts for value in (count * step, count / 100, count)] + [
        json.dumps(value) for value in others
    ]
    multiples(kind, step, texts)
