"""Masking of columns that a contract marks `pii=True`, in rows and in the raw bytes of records.

Raw bytes that cannot be taken apart (broken JSON, CSV with a wrong number of fields) are masked as a whole as soon as
the contract has a masked column: what cannot be located cannot be shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

MASK = "***"
_WORDS = re.compile(r"\w+")


class Redactor:
    """Masks the columns of one source.

    Args:
        columns: the names to mask, compared without case.

    Example:
        >>> Redactor(["email"]).record(b'{"id": 1, "email": "a@b.c"}')
        b'{"id": 1, "email": "***"}'
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self._columns = frozenset(column.lower() for column in columns)

    def row(self, row: Mapping[str, object]) -> dict[str, object]:
        """The row with masked values; NULL stays NULL, for it says nothing."""
        return {name: self._masked(name, value) for name, value in row.items()}

    def value(self, column: str, value: str) -> str:
        """A value as text, for the `got` of a dead letter about `column` (dotted for a nested field, or several).

        Without a column the value is the text of the record, which may hold any of the masked ones.
        """
        if not value:
            return value
        if not column:
            return (self.record(value.encode()) or b"").decode()
        names = {column, *_WORDS.findall(column)}
        return MASK if any(self._hides(name) for name in names) else value

    def record(self, value: bytes | None) -> bytes | None:
        """The raw bytes of a JSON record with masked values, masked as a whole where they are no JSON object."""
        if value is None or not self._columns:
            return value
        try:
            pairs = json.loads(value, object_pairs_hook=_Pairs, parse_float=_Number, parse_int=_Number)
        except (ValueError, RecursionError):
            return MASK.encode()
        if not isinstance(pairs, _Pairs):
            return MASK.encode()
        return self._object(pairs).encode()

    def text(self, text: str, row: Mapping[str, object]) -> str:
        """A message with the values of the row's masked columns replaced wherever they occur in it."""
        hidden = {str(value) for name, value in row.items() if self._hides(name) and value not in (None, "")}
        for value in sorted(hidden, key=len, reverse=True):
            text = text.replace(value, MASK)
        return text

    def _hides(self, name: str) -> bool:
        return name.lower() in self._columns

    def _masked(self, name: str, value: object) -> object:
        return MASK if self._hides(name) and value is not None else value

    def _object(self, pairs: _Pairs) -> str:
        """The object again, every occurrence of a masked name hidden, at any depth (debezium nests rows)."""
        parts = [
            f"{json.dumps(name, ensure_ascii=False)}: "
            f"{json.dumps(MASK) if self._hides(name) and value is not None else self._json(value)}"
            for name, value in pairs.pairs
        ]
        return "{" + ", ".join(parts) + "}"

    def _json(self, value: object) -> str:
        if isinstance(value, _Pairs):
            return self._object(value)
        if isinstance(value, list):
            return "[" + ", ".join(self._json(item) for item in value) + "]"
        if isinstance(value, _Number):
            return value
        return json.dumps(value, ensure_ascii=False)


class _Pairs:
    """A JSON object with its names in order and repeated ones kept, so that a duplicate is masked too."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        self.pairs = pairs


class _Number(str):
    """A number as it was written: masking must not change the other values."""

    __slots__ = ()


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """`text` with each secret replaced, the longest first.

    Example:
        >>> mask_secrets("kafka:x?password=hunter2", ["hunter2"])
        'kafka:x?password=***'
    """
    for secret in sorted((secret for secret in secrets if secret), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
