"""Which views can be compared with a batch, and what the oracle must know of each.

A view whose answer the epochs decide is made again epoch by epoch (`timeline`). One is left out only where even that
asks another question than the view answers; the reason is told, for what is not compared is not verified.
"""

from __future__ import annotations

from dataclasses import replace

import sqlglot
from sqlglot import exp
from sqlglot.optimizer.qualify import qualify

from penstock.graph import SourceDecl
from penstock.plan.blocks import (
    Block,
    FinalBlock,
    FlatBlock,
    GroupedBlock,
    Late,
    RankedBlock,
    SourceBlock,
    StepBlock,
    UnionBlock,
    quote,
)
from penstock.plan.late import exclude_late, late_condition
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
        spec = _spec(lineage, view)
        reason = spec.skipped or _below(lineage, spec, found)
        found[view.name] = replace(spec, skipped=reason)
    return tuple(found.values())


def _spec(lineage: _Lineage, view: ViewPlan) -> ViewSpec:
    plan = lineage.plan
    block = plan.node(view.node).block
    if isinstance(block, StepBlock):
        return _step_spec(lineage, block)
    late = tuple(rule for node, rule in plan.late_blocks if plan.owner(node.name) == view.name)
    if any(_is_hop(plan, rule) for rule in late):
        return _final_or_batch(lineage, _hopping(plan, view, late), block)
    scoped = tuple(lineage.scoped(view.name)) if late else ()
    spec = ViewSpec(view.name, view.oracle, view.key, tuple(_late_spec(plan, rule) for rule in late), scoped)
    if not _alike(lineage, view, late):
        spec = _marked(lineage, spec, late)
    return _final_or_batch(lineage, spec, block)


def _final_or_batch(lineage: _Lineage, spec: ViewSpec, block: Block) -> ViewSpec:
    if spec.skipped:
        return spec
    if isinstance(block, FinalBlock) and lineage.moves(spec.name):
        return _frozen(lineage.plan, spec, block)
    if block.relation.transient:
        return _answered(lineage, spec, block)
    return spec


def _below(lineage: _Lineage, spec: ViewSpec, found: dict[str, ViewSpec]) -> str:
    """Why the view is not compared for the sake of one that it reads; empty if there is no such reason."""
    for name in lineage.reads[spec.name]:
        if name in found and found[name].skipped:
            return f"it reads {name}, which is not compared"
    if spec.kind == "batch":
        return ""
    for name in lineage.below(spec.name):
        if found[name].marked:
            return f"it depends on the epochs, and {name} reads rows on time and late ones"
        if found[name].kind == "batch" and lineage.plan.node(lineage.plan.node_of(name)).block.relation.transient:
            return f"it depends on the epochs, and {name} sums up a transient stream"
    return ""


def _late_spec(plan: Plan, rule: Late) -> LateSpec:
    # Behind a filter the ledger holds the rows that pass it; the oracle counts those of the stream itself.
    counted = plan.graph.source(rule.relation) is not None or _is_hop(plan, rule)
    return LateSpec(rule.stream, rule.end_of_event, counted)


# -- views that the epochs decide --------------------------------------------------------------------------------------


def _step_spec(lineage: _Lineage, block: StepBlock) -> ViewSpec:
    """A fold over the epochs. Over a filter of a stream, its rows are in the stream's order."""
    plan, step = lineage.plan, block.step
    spec = ViewSpec(step.name, "", (), kind="step", time=block.time, streams=block.relation.streams)
    node = plan.node(block.input)
    if isinstance(node.block, SourceBlock) or not node.block.relation.hidden:
        return spec
    chain = tuple(lineage.scoped(step.name))
    blocks = [plan.node(plan.node_of(name)).block for name in chain]
    simple = all(isinstance(b, FlatBlock) and len(b.from_) == 1 for b in blocks)
    kept = all(s.kind == "stream" and s.retention is None for s in lineage.sources(step.name))
    if not simple or not kept:
        reason = f"the order of its changes is that of a stream, and {step.input} joins it or forgets rows of it"
        return replace(spec, skipped=reason)
    return replace(spec, scoped=chain)


def _frozen(plan: Plan, spec: ViewSpec, block: FinalBlock) -> ViewSpec:
    """Windows by the state that closed them. The end of a row's window must be told by its columns."""
    if spec.marked:
        return replace(spec, skipped="its windows are frozen, and it reads rows on time and late ones")
    group = plan.node(block.input).block
    assert isinstance(group, GroupedBlock | RankedBlock)
    for name, sql in group.outputs:
        # An output is cast to the view's type, which is the type of a timestamp here.
        bare = sql.removeprefix("CAST(").removesuffix(" AS TIMESTAMP)")
        if bare.strip('"') == block.window.key:
            end = block.window.end.replace(quote(block.window.key), f"{quote(name)}::TIMESTAMP")
            return replace(spec, kind="frozen", end=end, streams=block.window.streams)
        if bare == block.window.end:
            return replace(spec, kind="frozen", end=f"{quote(name)}::TIMESTAMP", streams=block.window.streams)
    return replace(spec, skipped="its windows are frozen when they close, and its columns do not tell the window")


def _answered(lineage: _Lineage, spec: ViewSpec, block: Block) -> ViewSpec:
    """Rows that pass are answered by the state of their epoch; a sum of what passes is that over all of it."""
    plan = lineage.plan
    reads = lineage.tables[spec.name]
    passing = [name for name in reads if plan.node(plan.node_of(name)).block.relation.transient]
    if lineage.answers(block):
        return replace(spec, kind="answered") if len(passing) == 1 else replace(spec, skipped=_PASSING)
    if len(reads) == 1 and isinstance(block, GroupedBlock):
        return spec
    return replace(spec, skipped=_PASSING)


_PASSING = "it joins what passes and sums it up in one query: give the join a view of its own"


# -- rows on time, and late ones ---------------------------------------------------------------------------------------


def _alike(lineage: _Lineage, view: ViewPlan, late: tuple[Late, ...]) -> bool:
    """Whether all readings of a stream leave out the same late rows: then one copy without them stands for all."""
    rules = {(rule.stream, rule.end_of_event) for rule in late}
    streams = {rule.stream for rule in late}
    names = {*streams, *lineage.scoped(view.name)}
    readings = sum(1 for name in lineage.tables[view.name] if name in names)
    shared = [
        rule
        for rule in late
        if lineage.plan.owner(rule.relation) == view.name and lineage.plan.node(rule.relation).consumers > 1
    ]
    return not late or (len(rules) == len(streams) and readings == len(late) and not shared)


def _marked(lineage: _Lineage, spec: ViewSpec, late: tuple[Late, ...]) -> ViewSpec:
    """The text with each windowed SELECT over the stream's rows that are not late for it."""
    plan = lineage.plan
    relations = {name.lower(): plan.node(plan.node_of(name)).block.relation for name in lineage.reads[spec.name]}
    schema: dict[str, object] = {n: {f.name: f.type for f in r.fields} for n, r in relations.items()}
    parsed = sqlglot.parse_one(spec.sql, dialect="duckdb")
    qualified = qualify(parsed, schema=schema, dialect="duckdb", validate_qualify_columns=False)
    assert isinstance(qualified, exp.Query)
    tree, excluded = exclude_late(qualified, relations)
    streams = tuple(dict.fromkeys(rule.relation for rule in excluded))
    windows = sorted((rule.stream, rule.end_of_event) for rule in excluded)
    if windows != sorted((rule.stream, rule.end_of_event) for rule in late) or any(
        plan.graph.source(name) is None for name in streams
    ):
        told = ", ".join(sorted({rule.stream for rule in late}))
        return replace(spec, skipped=f"it reads {told} in several ways, some of which leave out late rows")
    return replace(spec, sql=tree.sql("duckdb"), marked=streams, scoped=())


def _is_hop(plan: Plan, rule: Late) -> bool:
    return bool(plan.node(rule.relation).relation.hops)


def _hopping(plan: Plan, view: ViewPlan, late: tuple[Late, ...]) -> ViewSpec:
    """The text with the rows of hopping windows less those whose window had closed before they came.

    A row is late for each window on its own: the stream is read with its watermarks, and each row of a window asks.
    """
    spec = ViewSpec(view.name, view.oracle, view.key, tuple(_late_spec(plan, rule) for rule in late))
    tree = sqlglot.parse_one(view.oracle, dialect="duckdb")
    left = list(late)
    for place in list(tree.find_all(exp.Subquery)):
        table = _hopped(place)
        around = place.find_ancestor(exp.Select)
        if table is None or around is None:
            continue
        rule = next((r for r in left if (r.stream.lower(), r.alias) == (table.name.lower(), place.alias)), None)
        if rule is None:
            return replace(spec, skipped=_HOPPING)
        left.remove(rule)
        table.set("alias", exp.TableAlias(this=exp.to_identifier(table.alias_or_name, quoted=True)))
        table.set("this", exp.to_identifier(f"h_{rule.stream}", quoted=True))
        table.set("db", exp.to_identifier("_ps"))
        around.where(f"NOT {late_condition(rule)}", copy=False, dialect="duckdb")
    if left:
        return replace(spec, skipped=_HOPPING)
    return replace(spec, sql=tree.sql("duckdb"), marked=tuple(dict.fromkeys(rule.stream for rule in late)))


_HOPPING = "a row may be late for some of its hopping windows, and they are not over a stream itself"


def _hopped(place: exp.Subquery) -> exp.Table | None:
    """What the macro `hop` gives windows to, where that is one relation."""
    inner = place.this
    if not isinstance(inner, exp.Select) or inner.args.get("joins") or inner.args.get("from_") is None:
        return None
    starts = [e for e in inner.expressions if e.alias == "window_start" and isinstance(e.unalias(), exp.Explode)]
    table = inner.args["from_"].this
    return table if starts and isinstance(table, exp.Table) else None


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

    def below(self, name: str) -> list[str]:
        """All views that it reads, through others too."""
        found: dict[str, None] = {}
        for read in self.reads.get(name, []):
            if read in self.reads:
                found |= {read: None} | dict.fromkeys(self.below(read))
        return list(found)

    def moves(self, name: str) -> bool:
        """Whether what a closed window shows would change later if it were not frozen."""
        steps = {s.name for s in self.plan.graph.steps}
        return bool(steps & set(self.below(name))) or any(
            s.kind == "table" or s.retention is not None or s.transient for s in self.sources(name)
        )

    def answers(self, block: Block) -> bool:
        """Whether each row of the block comes from one row that passes, by the state of its epoch."""
        if isinstance(block, UnionBlock):
            return all(self._passes(name) for name in block.inputs)
        if not isinstance(block, FlatBlock):
            return False
        passing = [i for i in block.from_ if self.plan.node(i.relation).block.relation.transient]
        return len(passing) == 1 and passing[0].certain and self._passes(passing[0].relation)

    def _passes(self, name: str) -> bool:
        node = self.plan.node(name)
        return isinstance(node.block, SourceBlock) or node.view is not None or self.answers(node.block)

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
