"""Which views can be compared with a batch, and what the oracle must know of each.

A view is left out only where the batch would ask another question than the view answers; the reason is told to the
user, for what is not compared is not verified.
"""

from __future__ import annotations

import sqlglot
from sqlglot import exp

from penstock.graph import SourceDecl, ViewDecl
from penstock.plan.blocks import Late, StepBlock
from penstock.plan.plan import Plan, ViewPlan
from penstock.url import Url
from penstock.verify.spec import LateSpec, SourceSpec, ViewSpec


def source_specs(plan: Plan, urls: dict[str, Url]) -> tuple[SourceSpec, ...]:
    """What the oracle is told of the sources."""
    return tuple(
        SourceSpec(
            block.source.name,
            str(urls[block.source.name]),
            block.relation.event,
            tuple((c.name, c.sql) for c in block.source.schema.checks),
        )
        for block in plan.sources
    )


def view_specs(plan: Plan) -> tuple[ViewSpec, ...]:
    """What the oracle is told of the views, inputs first."""
    lineage = _Lineage(plan)
    found: dict[str, ViewSpec] = {}
    for view in plan.views:
        declared = plan.graph.view(view.name)
        if declared is None:
            found[view.name] = ViewSpec(view.name, "", (), skipped="a step: its answer depends on the epochs")
            continue
        late = tuple((node.name, rule) for node, rule in plan.late_blocks if plan.owner(node.name) == view.name)
        reason = _why_not(lineage, declared, view, late, found)
        specs = tuple(_late_spec(plan, rule) for _, rule in late)
        scoped = tuple(lineage.scoped(view.name)) if late else ()
        found[view.name] = ViewSpec(view.name, view.oracle, view.key, specs, scoped, reason)
    return tuple(found.values())


def _late_spec(plan: Plan, rule: Late) -> LateSpec:
    # Behind a filter the ledger holds the rows that pass it; the oracle counts those of the stream itself.
    return LateSpec(rule.stream, rule.end_of_event, plan.graph.source(rule.relation) is not None)


def _why_not(
    lineage: _Lineage,
    declared: ViewDecl,
    view: ViewPlan,
    late: tuple[tuple[str, Late], ...],
    found: dict[str, ViewSpec],
) -> str:
    """Why the view is not compared; empty if it is."""
    for name in lineage.reads[view.name]:
        if name in found and found[name].skipped:
            return f"it reads {name}, which is not compared"
    sources = lineage.sources(view.name)
    passing = [s.name for s in sources if s.transient]
    if passing:
        return f"{passing[0]} is transient: its rows are answered once, by the state of their epoch"
    if declared.emit == "final":
        frozen = [s.name for s in sources if s.kind == "table" or s.retention is not None]
        if frozen:
            return f"its rows are frozen when a window closes, and {frozen[0]} goes on changing"
    return _late_problem(lineage, view, late)


def _late_problem(lineage: _Lineage, view: ViewPlan, late: tuple[tuple[str, Late], ...]) -> str:
    """One copy without late rows stands for every reading of a stream: right only where all readings leave out them."""
    if not late:
        return ""
    rules = {(rule.stream, rule.end_of_event) for _, rule in late}
    streams = {rule.stream for _, rule in late}
    names = {*streams, *lineage.scoped(view.name)}
    readings = sum(1 for name in lineage.tables[view.name] if name in names)
    shared = [
        rule.relation
        for _, rule in late
        if lineage.plan.owner(rule.relation) == view.name and lineage.plan.node(rule.relation).consumers > 1
    ]
    if len(rules) != len(streams) or readings != len(late) or shared:
        return f"it reads {', '.join(sorted(streams))} in several ways, some of which leave out late rows"
    return ""


class _Lineage:
    """What each view reads, by the names in its text."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        graph = plan.graph
        declared = [
            *(s.name for s in graph.sources),
            *(v.name for v in graph.views),
            *(s.name for s in graph.steps),
        ]
        known = {name.lower(): name for name in declared}
        self.tables: dict[str, list[str]] = {}
        self.reads: dict[str, list[str]] = {}
        for view in plan.views:
            block = plan.node(view.node).block
            if isinstance(block, StepBlock):
                self.tables[view.name] = self.reads[view.name] = [block.step.input]
                continue
            tree = sqlglot.parse_one(view.oracle, dialect="duckdb")
            own = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
            names = [t.name.lower() for t in tree.find_all(exp.Table) if t.name.lower() not in own]
            self.tables[view.name] = [known[n] for n in names if n in known]
            self.reads[view.name] = list(dict.fromkeys(self.tables[view.name]))

    def sources(self, name: str) -> list[SourceDecl]:
        """All sources that a view reads, through other views too."""
        found: dict[str, SourceDecl] = {}
        for read in self.reads.get(name, []):
            source = self.plan.graph.source(read)
            for each in [source] if source is not None else self.sources(read):
                found[each.name] = each
        return list(found.values())

    def scoped(self, name: str) -> list[str]:
        """The views through which it reads single rows of a stream, inputs first."""
        wanted: set[str] = set()

        def visit(reader: str) -> None:
            for read in self.reads.get(reader, []):
                view = self.plan.view(read)
                if view is not None and self.plan.node(view.node).relation.hidden and read not in wanted:
                    wanted.add(read)
                    visit(read)

        visit(name)
        return [v.name for v in self.plan.views if v.name in wanted]
