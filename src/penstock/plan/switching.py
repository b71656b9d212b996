"""Which groups an epoch may compute again as a whole, instead of by the changes of their input.

A *unit* is a grouped block with what is `own` to it: the joins, projections and unions before it whose rows go nowhere
else and are not stored. When the unit is computed again, none of them runs: the group reads what is stored at the ends
(`reads`) through their SQL. That pays where a change is wide: the terms of a join then cost more than the join.

Invariant: both ways leave the same state and tell the same changes, so each epoch may take either. So no unit reads
what an epoch's watermarks decide (late rows, windows that close and whose rows are forgotten), nor what is not stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.plan import flat, union
from penstock.plan.blocks import FlatBlock, GroupedBlock, Node, SourceBlock, UnionBlock, content_name
from penstock.plan.plan import Plan


@dataclass(frozen=True)
class Unit:
    """own: blocks that do not run when the group is computed again; reads: the stored relations at the ends.

    sources: whose records move the unit. content: the group's input as SQL over what is stored.
    """

    group: str
    view: str
    own: frozenset[str]
    reads: frozenset[str]
    sources: frozenset[str]
    content: str


def units(plan: Plan) -> Mapping[str, Unit]:
    """All units of a plan, by their groups."""
    found = (_unit(plan, node) for node in plan.nodes)
    return {unit.group: unit for unit in found if unit is not None}


def _unit(plan: Plan, node: Node) -> Unit | None:
    block = node.block
    if not isinstance(block, GroupedBlock) or block.window is not None or block.relation.streams:
        return None
    if block.strategy == "merge" and any(each.kind in ("min", "max") for each in block.aggregates):
        return None
    view = plan.owner(node.name)
    declared = plan.graph.view(view)
    if declared is not None and declared.strategy == "incremental":
        return None
    walk = _Walk(plan)
    content = walk.content(block.input)
    own = [plan.node(name).block for name in walk.own]
    joins = any(isinstance(each, FlatBlock) and len(each.from_) > 1 for each in own)
    # Without a join before it, merging costs less than reading everything, however much has changed.
    if content is None or not (joins or block.strategy == "affected groups"):
        return None
    return Unit(node.name, view, frozenset(walk.own), frozenset(walk.reads), _sources(plan, walk.reads), f"({content})")


class _Walk:
    """From a group back to what is stored."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.own: set[str] = set()
        self.reads: set[str] = set()

    def content(self, name: str) -> str | None:
        """A relation's content as a query, None where it cannot be had."""
        node = self._plan.node(name)
        block, relation = node.block, node.relation
        if relation.hidden or relation.transient or relation.streams:
            return None
        inner = isinstance(block, FlatBlock | UnionBlock) and node.content != "table"
        if not inner or node.consumers > 1 or node.view is not None:
            self.reads.add(name)
            return f"SELECT * FROM {content_name(relation)}" if node.content != "none" else None
        assert isinstance(block, FlatBlock | UnionBlock)
        contents: dict[str, str] = {}
        for each in block.inputs:
            inside = self.content(each)
            if inside is None:
                return None
            contents[each] = content_name(self._plan.node(each).relation) if each in self.reads else f"({inside})"
        self.own.add(name)
        return _content_sql(block, contents)


def _content_sql(block: FlatBlock | UnionBlock, contents: dict[str, str]) -> str | None:
    if isinstance(block, FlatBlock):
        return None if block.late is not None else flat.content_sql(block, contents)
    return union.content_sql(block, contents)


def _sources(plan: Plan, names: set[str]) -> frozenset[str]:
    """The sources that relations come from."""
    found, waiting = set(), list(names)
    while waiting:
        block = plan.node(waiting.pop()).block
        if isinstance(block, SourceBlock):
            found.add(block.source.name)
        waiting += block.inputs
    return frozenset(found)
