"""Masked columns never show, and nothing else changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.observe.redaction import MASK, Redactor, mask_secrets

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_a_record_is_masked_wherever_the_name_occurs() -> None:
    record = b'{"Email": "a@b", "n": 1.50, "after": {"email": ["a@b"]}, "email": "c@d", "list": [{"email": 7}]}'
    masked = Redactor(["email"]).record(record)
    assert masked == (
        b'{"Email": "***", "n": 1.50, "after": {"email": "***"}, "email": "***", "list": [{"email": "***"}]}'
    )


@pytest.mark.parametrize("record", [b'{"email": "a@b"', b"a@b", b'"a@b"', b"\xff", b"[" * 100_000])
def test_what_cannot_be_taken_apart_is_masked_whole(record: bytes) -> None:
    assert Redactor(["email"]).record(record) == MASK.encode()
    assert Redactor([]).record(record) == record


def test_a_repeated_name_is_masked_each_time() -> None:
    assert Redactor(["a"]).record(b'{"a": 1, "b": 2, "a": 3}') == b'{"a": "***", "b": 2, "a": "***"}'


def test_null_stays_null() -> None:
    assert Redactor(["a"]).record(b'{"a": null}') == b'{"a": null}'
    assert Redactor(["a"]).row({"a": None, "b": 1}) == {"a": None, "b": 1}
    assert Redactor(["a"]).record(None) is None


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_other_values_stay_as_they_are(record: dict[str, object]) -> None:
    masked = Redactor(["email"]).record(json.dumps(record | {"email": "secret"}).encode())
    assert masked is not None
    assert json.loads(masked) == record | {"email": MASK}


def test_values_messages_and_secrets() -> None:
    redactor = Redactor(["email", "person"])
    assert redactor.value("person.name", "Ann") == MASK
    assert redactor.value("n", "7") == "7"
    assert redactor.value("n, email", "7, a@b") == MASK
    assert redactor.value("", '{"email": "a@b') == MASK
    assert redactor.value("", '{"n": 7, "email": "a@b"}') == '{"n": 7, "email": "***"}'
    assert Redactor([]).value("", "7") == "7"
    assert redactor.text("got a@b for 7", {"email": "a@b", "n": 7}) == "got *** for 7"
    assert mask_secrets("ab abc", ["ab", "abc", ""]) == "*** ***"
