"""How long the rows of closed windows are kept: as long as something may still be computed from them.

A windowed relation forgets a window when its correction horizon has passed: no delta of it can come any more. Readers
that take deltas alone (sums, sinks, steps) do not notice. One that computes from the content again would answer from
what is left, so the rows stay: for a window over them until that window is beyond its horizon too, for all others for
ever.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.plan.blocks import (
    Block,
    FlatBlock,
    GroupedBlock,
    RankedBlock,
    RecentBlock,
    RefreshBlock,
    Relation,
    UnionBlock,
    Windowed,
)
from penstock.plan.closings import tied

FOR_EVER = None


def kept_after(name: str, blocks: Mapping[str, Block]) -> tuple[str, ...] | None:
    """The lengths (SQL intervals) to add to a window's end before it counts as old; `FOR_EVER` where it never does."""
    block = blocks[name]
    # The join that a side of an interval join was made for says itself how long it needs its rows.
    if not isinstance(block, Windowed) or block.window is None or isinstance(block, RecentBlock):
        return ()
    relations = {b.relation.name.lower(): b.relation for b in blocks.values()}
    return _kept(name, blocks, relations)


def readers_for_ever(name: str, blocks: Mapping[str, Block]) -> tuple[str, ...]:
    """The blocks because of which the rows of `name` are kept for ever."""
    relations = {b.relation.name.lower(): b.relation for b in blocks.values()}
    found: list[str] = []
    for reader in _readers(name, blocks):
        if _kept_by(reader, blocks, relations) is FOR_EVER:
            deeper = readers_for_ever(reader.relation.name, blocks) if _passes(reader) else ()
            found += deeper or [reader.relation.name]
    return tuple(dict.fromkeys(found))


def _kept(name: str, blocks: Mapping[str, Block], relations: Mapping[str, Relation]) -> tuple[str, ...] | None:
    lengths: list[str] = []
    for reader in _readers(name, blocks):
        more = _kept_by(reader, blocks, relations)
        if more is FOR_EVER:
            return FOR_EVER
        lengths += more
    return tuple(dict.fromkeys(lengths))


def _kept_by(reader: Block, blocks: Mapping[str, Block], relations: Mapping[str, Relation]) -> tuple[str, ...] | None:
    match reader:
        case GroupedBlock(strategy="affected groups", window=None) | RankedBlock(window=None) | RefreshBlock():
            return FOR_EVER
        case GroupedBlock(strategy="affected groups", window=window):
            return (window.length,) if window is not None and window.length else ()
        case FlatBlock() if len(reader.from_) > 1 and _needs_content(reader, blocks) and not tied(reader, relations):
            return FOR_EVER
        case FlatBlock() | UnionBlock():
            return _kept(reader.relation.name, blocks, relations)
        case _:
            return ()


def _needs_content(join: FlatBlock, blocks: Mapping[str, Block]) -> bool:
    """A request that is answered once reads what is there; everything else in a join may move again."""
    return sum(not blocks[i.relation].relation.transient for i in join.from_) > 1


def _passes(block: Block) -> bool:
    return isinstance(block, FlatBlock | UnionBlock)


def _readers(name: str, blocks: Mapping[str, Block]) -> list[Block]:
    return [b for b in blocks.values() if name in b.inputs]
