"""Which columns of a source an epoch needs: the fewer there are, the less is judged, looked up and compared.

On the safe side: where it is not certain that a column is left out everywhere, all are kept (None).
"""

from __future__ import annotations

import re

from penstock.plan.blocks import FlatBlock, Input, SourceBlock, quote
from penstock.plan.plan import Plan

_QUOTED = re.compile(r"'(?:[^']|'')*'")


def columns_judged(plan: Plan, source: SourceBlock) -> frozenset[str] | None:
    """The columns of a stream that are needed of its records, None for all of them (so where they are stored)."""
    declared = source.source
    node = plan.node(source.relation.name)
    whole = declared.kind != "stream" or node.content != "none" or declared.unique or declared.retention is not None
    return None if whole else columns_read(plan, source)


def columns_read(plan: Plan, source: SourceBlock) -> frozenset[str] | None:
    """The columns of a source's delta that any block, view or sink reads, None for all of them."""
    relation = source.relation
    if relation.name in {plan.node_of(sink.view) for sink in plan.graph.sinks} | {view.node for view in plan.views}:
        return None
    found: set[str] = set()
    for consumer in plan.nodes:
        block = consumer.block
        if relation.name not in block.inputs:
            continue
        if not isinstance(block, FlatBlock):
            return None
        for place in block.from_:
            if place.relation == relation.name:
                read = _read_by(block, place, relation.columns)
                if read is None:
                    return None
                found |= read
    return frozenset(found)


def _read_by(block: FlatBlock, place: Input, columns: tuple[str, ...]) -> set[str] | None:
    """The columns that a flat block reads of one of its inputs; None where one is not named by its alias."""
    texts = [sql for _, sql in block.columns] + list(block.where) + [i.on for i in block.from_ if i.on]
    if block.late is not None:
        texts += [block.late.window_start, block.late.window_end]
    found: set[str] = set()
    for text in texts:
        bare = _QUOTED.sub("''", text)
        for column in columns:
            name = re.escape(quote(column))
            qualified = re.compile(rf"{re.escape(quote(place.alias))}\s*\.\s*{name}", re.IGNORECASE)
            if qualified.search(bare):
                found.add(column)
            rest = re.sub(rf'"[^"]+"\s*\.\s*{name}', "", bare, flags=re.IGNORECASE)
            if re.search(rf"(?<![\w\"]){re.escape(column)}(?![\w\"])|{name}", rest, re.IGNORECASE):
                return None
    return found
