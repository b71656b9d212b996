"""A compiled pipeline: blocks in topological order, what each keeps, and where views and sinks find their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from penstock.pipeline import Graph
from penstock.plan.blocks import (
    ConstantBlock,
    FinalBlock,
    FlatBlock,
    GroupedBlock,
    Late,
    Node,
    RefreshBlock,
    SourceBlock,
    StepBlock,
    UnionBlock,
)


@dataclass(frozen=True)
class ViewPlan:
    """A declared view in the plan. node: the relation that holds it; oracle: the batch query that it must equal.

    columns: its own columns (without hidden ones); key: () where none is known; notes: what was made definite.
    """

    name: str
    node: str
    oracle: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The whole incremental program. order: relations in the order in which an epoch visits them."""

    graph: Graph
    nodes: tuple[Node, ...]
    views: tuple[ViewPlan, ...]
    owners: Mapping[str, str]

    def node(self, name: str) -> Node:
        return next(n for n in self.nodes if n.name == name)

    def view(self, name: str) -> ViewPlan | None:
        return next((v for v in self.views if v.name == name), None)

    def node_of(self, name: str) -> str:
        """The relation that holds a view, or a source, of that name."""
        found = self.view(name)
        return found.node if found else name

    @property
    def sources(self) -> tuple[SourceBlock, ...]:
        return tuple(n.block for n in self.nodes if isinstance(n.block, SourceBlock))

    @property
    def late_rules(self) -> tuple[Late, ...]:
        """For which blocks rows of which stream can be late."""
        return tuple(late for _, late in self.late_blocks)

    @property
    def late_blocks(self) -> tuple[tuple[Node, Late], ...]:
        """The blocks for which rows can be late, with their rules."""
        found: list[tuple[Node, Late]] = []
        for node in self.nodes:
            if isinstance(node.block, FlatBlock) and node.block.late is not None:
                found.append((node, node.block.late))
            elif isinstance(node.block, RefreshBlock):
                found += [(node, late) for late in node.block.late]
        return tuple(found)

    def fresh(self, name: str) -> bool:
        """Whether all rows of the relation's deltas come from records of the epoch itself, none from what is stored."""
        block = self.node(name).block
        if isinstance(block, FlatBlock) and len(block.from_) == 1:
            return self.fresh(block.from_[0].relation)
        return isinstance(block, SourceBlock) and block.relation.append_only

    @cached_property
    def light(self) -> bool:
        """Whether an epoch's work grows with its input alone, whatever is stored."""
        return all(
            isinstance(block, SourceBlock | ConstantBlock | UnionBlock | FinalBlock)
            or (isinstance(block, FlatBlock) and len(block.from_) == 1)
            or (isinstance(block, GroupedBlock) and block.strategy == "merge")
            for block in (node.block for node in self.nodes)
        )

    @property
    def has_finals(self) -> bool:
        """Whether any view waits for windows to close."""
        return any(isinstance(n.block, FinalBlock) for n in self.nodes)

    def owner(self, name: str) -> str:
        """The declared view that the relation `name` belongs to (itself for sources)."""
        return self.owners.get(name, name)

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the meaning of the program or of its state changes, not with places in files."""
        parts: list[str] = []
        for node in self.nodes:
            block = node.block
            if isinstance(block, SourceBlock):
                source = block.source
                parts.append(repr((source.name, source.kind, source.schema, source.event_time, source.watermark)))
                parts.append(repr((source.key, source.version, source.retention, source.unique, source.within)))
            elif isinstance(block, StepBlock):
                parts.append(repr((block.relation, block.input, block.key_fields, block.time)))
            else:
                parts.append(repr(block))
            parts.append(repr(node.content))
        # A sink has an outbox in the state, so it is part of what a state belongs to.
        parts.append(repr(sorted((sink.name, sink.view) for sink in self.graph.sinks)))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
