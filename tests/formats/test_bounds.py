"""Bounds of times and durations: constants in the statement, which no judge may stumble over."""

from __future__ import annotations

import pytest

from penstock.contract.schema import Column, Rule, Schema
from penstock.formats.decode import decoder_for
from tests.formats.agreement import agree


@pytest.mark.parametrize(
    ("kind", "bound", "right", "wrong"),
    [
        ("TIMESTAMP", "2020-01-01T00:00:00", "2020-01-01T00:00:00", "2019-12-31T23:59:59.999999"),
        ("TIMESTAMP", "2020-01-01T02:00:00+02:00", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00+00:01"),
        ("DATE", "2024-02-29", "2024-02-29", "2024-02-28"),
        ("TIME", "08:00:00", "08:00:00", "07:59:59.9"),
    ],
)
def test_a_bound_holds_with_and_without_a_zone(kind: str, bound: str, right: str, wrong: str) -> None:
    schema = Schema("Bounded", (Column("c", kind, rules=(Rule("ge", bound),)),))
    found = agree(decoder_for(schema, "json"), [f'{{"c":"{text}"}}'.encode() for text in (right, wrong)])
    assert [verdict and verdict.rule for verdict in found] == [None, "ge"]
