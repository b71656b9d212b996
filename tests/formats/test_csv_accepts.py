"""What docs/guides/contracts.md says of CSV."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

import penstock as ps
from penstock.contract.schema import Verdict
from penstock.formats.decode import RecordDecoder
from penstock.formats.judge_sql import Judgement


class Row(ps.Contract):
    i: int | None
    f: float | None
    b: bool | None
    s: str | None
    d: Decimal | None = ps.Field(max_digits=6, decimal_places=2)
    at: datetime | None
    xs: list[int] | None


COLUMNS = ("i", "f", "b", "s", "d", "at", "xs")


def examine(line: str, header: tuple[str, ...]) -> dict[str, object] | str:
    """The values that are not null, or the rule that is broken."""
    pipeline = ps.Pipeline("p")
    pipeline.stream("s", Row)
    judgement = Judgement(pipeline.graph().sources[0].schema, "stream", (), None, timedelta(hours=1))
    found = RecordDecoder(judgement, "csv").examine(line.encode(), None, header)
    if isinstance(found, Verdict):
        return found.rule
    return {name: value for name, value in zip(COLUMNS, found.values, strict=True) if value is not None}


@pytest.mark.parametrize(
    ("column", "field", "value"),
    [
        ("i", "1", 1),
        ("i", '"1"', 1),
        ("i", "-7", -7),
        ("f", "1", 1.0),
        ("f", "1e3", 1000.0),
        ("f", "-0.5", -0.5),
        ("b", "true", True),
        ("s", "  x ", "  x "),
        ("s", "NULL", "NULL"),
        ("s", '""', ""),
        ("s", '"a,""b"""', 'a,"b"'),
        ("s", '"a\nb"', "a\nb"),
        ("d", "12", Decimal(12)),
        ("d", "12.5", Decimal("12.5")),
        ("at", "2026-01-01 10:00", datetime(2026, 1, 1, 10)),
        ("xs", '"[1,2]"', [1, 2]),
    ],
)
def test_accepted(column: str, field: str, value: object) -> None:
    assert examine(field, (column,)) == {column: value}


@pytest.mark.parametrize(
    ("column", "fields"),
    [
        ("i", ["+1", "01", "1.0", "1e3", " 1", "NULL", '""']),
        ("f", [".5", "NaN", "inf", " 2", '""']),
        ("b", ["True", "1", "yes"]),
        ("d", ["12.345", "1e2", '"1,50"', '""']),
        ("at", ["2026-01-01", "01.02.2026"]),
        ("xs", ["x", "{1}"]),
    ],
)
def test_dead(column: str, fields: list[str]) -> None:
    assert {field: examine(field, (column,)) for field in fields} == dict.fromkeys(fields, "type")


def test_header_and_shape() -> None:
    assert examine("x,1", ("s", "i")) == {"i": 1, "s": "x"}
    assert examine("1,2", ("I", "f")) == {"f": 2.0}
    assert examine("1,9", ("i", "unknown")) == {"i": 1}
    assert examine(",", ("i", "s")) == {}
    assert examine("1,2", ("i", "i")) == "duplicate_key"
    assert examine("1,-D", ("i", "_op")) == "op_not_allowed"
    for line in ("1", "1,2,3", 'x"y,1', "1;2"):
        assert examine(line, ("s", "i")) == "fields"
