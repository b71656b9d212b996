"""What a person sees of personal data: columns marked `pii=True` are masked, unless they are revealed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.observe.redaction import MASK, Redactor
from penstock.pipeline import Graph


def masked_columns(graph: Graph, kinds: Sequence[str] = ("stream", "table", "reference")) -> frozenset[str]:
    """The names of all masked columns of sources of these kinds, in lower case."""
    return frozenset(c.name.lower() for s in graph.sources if s.kind in kinds for c in s.schema.columns if c.pii)


def masked_rows(columns: Sequence[str], rows: list[list[Any]], hidden: frozenset[str]) -> list[list[Any]]:
    """The rows with the values of hidden columns masked; NULL stays NULL."""
    places = [i for i, name in enumerate(columns) if name.lower() in hidden]
    if not places:
        return rows
    return [[MASK if i in places and v is not None else v for i, v in enumerate(row)] for row in rows]


def masked_letter(graph: Graph, letter: dict[str, Any], *, reveal: bool) -> dict[str, Any]:
    """The dead letter with the values of masked columns masked, unless they are to be revealed."""
    source = graph.source(letter["source"])
    hidden = [c.name for c in source.schema.columns if c.pii] if source else []
    if reveal or not hidden:
        return letter
    redactor = Redactor(hidden)
    shown = dict(letter)
    for name in ("value", "key"):
        raw = letter[name]
        masked = redactor.record(raw.encode()) if raw is not None else None
        shown[name] = masked.decode() if masked is not None else None
    shown["got"] = redactor.value(letter["field"], letter["got"])
    if shown["got"] != letter["got"]:
        shown["reason"] = letter["reason"].replace(letter["got"], shown["got"])
    return shown
