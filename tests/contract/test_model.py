"""Contracts become schemas; what cannot be checked in SQL is refused with the place and what to write instead."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import pytest
from pydantic import ConfigDict, PositiveInt, field_validator

from penstock.contract.model import Contract, Field, SqlType, schema_of
from penstock.contract.schema import ForeignKey, RowCheck, Rule
from penstock.errors import DeclarationErrors


class Part(Contract):
    a: int
    b: str | None = None


class Everything(Contract):
    __owner__ = "team"
    __checks__ = {"positive": "i > 0"}
    __references__ = {"(i, k)": "campaigns.(ad_id, campaign_id)"}
    model_config = ConfigDict(extra="forbid")

    i: int = Field(ge=0, pii=True, references="other.id")
    k: Literal["a", "b"] = "a"
    d: Decimal = Field(max_digits=10, decimal_places=2)
    p: PositiveInt
    items: list[int | None] = Field(max_length=4)
    m: dict[str, float] | None = None
    part: Part
    z: Annotated[int, SqlType("INTEGER")] = 5


def test_every_part_of_a_contract_reaches_the_schema() -> None:
    schema = schema_of(Everything)
    types = {column.name: (column.type, column.nullable) for column in schema.columns}
    assert types == {
        "i": ("BIGINT", False),
        "k": ("VARCHAR", False),
        "d": ("DECIMAL(10,2)", False),
        "p": ("BIGINT", False),
        "items": ("BIGINT[]", False),
        "m": ("MAP(VARCHAR, DOUBLE)", True),
        "part": ('STRUCT("a" BIGINT, "b" VARCHAR)', False),
        "z": ("INTEGER", False),
    }
    assert schema.columns[0].pii
    assert schema.columns[0].rules == (Rule("ge", 0),)
    assert schema.columns[1].rules == (Rule("one_of", ("a", "b")),)
    assert schema.columns[1].default == '"a"'
    assert schema.columns[4].children[0].nullable
    assert schema.checks == (RowCheck("positive", "i > 0"),)
    assert ForeignKey(("i", "k"), "campaigns", ("ad_id", "campaign_id")) in schema.foreign_keys
    assert ForeignKey(("i",), "other", ("id",)) in schema.foreign_keys
    assert (schema.extra, schema.owner) == ("dead", "team")


def test_all_mistakes_are_told_at_once_with_their_lines() -> None:
    class Bad(Contract):
        items: set[int]
        money: Decimal
        text: str = Field(pattern="(?=x)")
        fine: int

        @field_validator("fine")
        def check(cls, value: int) -> int:
            return value

    with pytest.raises(DeclarationErrors) as caught:
        schema_of(Bad)
    errors = caught.value.errors
    assert {error.code for error in errors} == {"PS-DECL-004"}
    lines = {error.where.line for error in errors if error.where}
    assert len(errors) == 4
    assert len(lines) == 4
    assert all(error.where and error.where.file == __file__ for error in errors)
    assert any("ps.Field(" in error.hint for error in errors)
