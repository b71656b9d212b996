"""What `penstock explain` shows: per view its blocks with strategy, reason, state, bound and SQL."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.pipeline import SourceDecl
from penstock.plan import flat, grouped, ranked, recent, session, union
from penstock.plan.blocks import (
    ConstantBlock,
    FinalBlock,
    FlatBlock,
    GroupedBlock,
    Node,
    RankedBlock,
    RecentBlock,
    RefreshBlock,
    SessionBlock,
    SourceBlock,
    StepBlock,
    UnionBlock,
    content_name,
)
from penstock.plan.plan import Plan


@dataclass(frozen=True)
class BlockReport:
    """One block as a person reads it."""

    name: str
    kind: str
    strategy: str
    reason: str
    inputs: tuple[str, ...]
    state: tuple[str, ...]
    late: str
    sql: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ViewReport:
    """A view or source with its blocks, inputs first."""

    name: str
    kind: str
    key: tuple[str, ...]
    emit: str
    blocks: tuple[BlockReport, ...]


def explain(plan: Plan, view: str | None = None) -> tuple[ViewReport, ...]:
    """The reports of all sources and views in the order of the plan, or of one of them."""
    reports: list[ViewReport] = []
    for node in plan.nodes:
        if isinstance(node.block, SourceBlock):
            source = node.block.source
            reports.append(ViewReport(source.name, source.kind, source.key, "", (_report(plan, node),)))
    for found in plan.views:
        blocks = tuple(_report(plan, n) for n in plan.nodes if plan.owners.get(n.name) == found.name)
        declared = plan.graph.view(found.name)
        kind = "view" if declared else "step"
        reports.append(ViewReport(found.name, kind, found.key, declared.emit if declared else "changes", blocks))
    return tuple(r for r in reports if view is None or r.name == view)


def _report(plan: Plan, node: Node) -> BlockReport:
    state = tuple(f"{t.name} ({', '.join(f.name for f in t.columns)}), bound by {t.bound}" for t in node.state)
    rules = [late for owner, late in plan.late_blocks if owner.name == node.name]
    late = "; ".join(f"rows of {r.stream} whose {r.window_end} the watermark has passed" for r in rules)
    notes = node.notes + _warnings(node) + _frozen(plan, node)
    return BlockReport(
        node.name,
        type(node.block).__name__.removesuffix("Block").lower(),
        node.strategy,
        node.reason,
        node.block.inputs,
        state,
        late,
        _sql(plan, node),
        notes,
    )


def _frozen(plan: Plan, node: Node) -> tuple[str, ...]:
    """What a final view is joined to (semantics T3)."""
    if not isinstance(node.block, FinalBlock):
        return ()
    moving = sorted({s.name for s in _sources(plan, node.name) if s.kind != "stream"})
    return (f"frozen at close: what {', '.join(moving)} does later does not change it",) if moving else ()


def _sources(plan: Plan, name: str) -> list[SourceDecl]:
    block = plan.node(name).block
    if isinstance(block, SourceBlock):
        return [block.source]
    return [s for below in block.inputs for s in _sources(plan, below)]


def _warnings(node: Node) -> tuple[str, ...]:
    block = node.block
    if not isinstance(block, GroupedBlock):
        return ()
    found = []
    for aggregate in block.aggregates:
        if aggregate.type in ("DOUBLE", "FLOAT") and aggregate.kind == "opaque":
            found.append(f"{aggregate.sql} over floats depends on order in its last digits (compared at 1e-9)")
            if block.having and aggregate.name in block.having:
                found.append("HAVING compares a float that depends on order")
    return tuple(found)


def _sql(plan: Plan, node: Node) -> str:
    contents = {n.name: content_name(n.relation) for n in plan.nodes}
    block = node.block
    match block:
        case SourceBlock():
            return ""
        case FlatBlock():
            delta = {name: f"delta({name})" for name in block.inputs}
            if len(block.from_) == 1:
                return flat.delta_sql(block, block.inputs[0], delta[block.inputs[0]], False, contents, late=True)[0]
            terms = [
                sql
                for name in block.inputs
                for sql in flat.delta_sql(block, name, delta[name], True, contents, late=True)
            ]
            return "\nUNION ALL ".join(terms)
        case UnionBlock():
            return "\nUNION ALL ".join(union.delta_sql(block, f"delta({i})", True) for i in block.inputs)
        case GroupedBlock(strategy="merge"):
            partials = grouped.partials_sql(block, f"delta({block.input})", True)
            return grouped.merge_touched_sql(block, f"({partials})", f"_ps.g_{node.name}")
        case GroupedBlock():
            return grouped.affected_rows_sql(block, contents[block.input], "affected groups")
        case RankedBlock(top=None):
            return ranked.rows_sql(block, contents[block.input], "touched")
        case RankedBlock():
            return ranked.outputs_sql(block, f"_ps.c_{node.name}")
        case SessionBlock():
            return session.rows_sql(block, f"delta({block.input})", "touched", weighted=False)
        case RecentBlock():
            return recent.content_sql(block, f"delta({block.input})")
        case FinalBlock():
            return f"SELECT * FROM {block.input} WHERE {block.window.end} <= watermark"
        case RefreshBlock() | ConstantBlock():
            return block.sql
        case StepBlock():
            return f"{block.step.function.__module__}.{block.step.function.__qualname__}(state, changes, timers)"
