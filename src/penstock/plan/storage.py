"""What each relation keeps between epochs, and what bounds it.

A relation's content is kept when something reads it: the other side of a join, a group that is recomputed, a refresh,
or a person (views, where it is cheap). State that nothing bounds is refused unless the user acknowledges it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from penstock.durations import format_duration
from penstock.errors import DeclarationError, DeclarationErrors, Error
from penstock.pipeline import Graph
from penstock.plan import final, ranked
from penstock.plan.blocks import (
    Block,
    Bound,
    ConstantBlock,
    Content,
    Field,
    FinalBlock,
    FlatBlock,
    GroupedBlock,
    Node,
    RankedBlock,
    RecentBlock,
    RefreshBlock,
    SessionBlock,
    SourceBlock,
    StateTable,
    StepBlock,
    Strategy,
    UnionBlock,
    Windowed,
)
from penstock.plan.keeping import FOR_EVER, kept_after, readers_for_ever
from penstock.plan.plan import ViewPlan

HIDDEN_FIELDS = (Field("_ps_p", "INTEGER", False), Field("_ps_o", "BIGINT", False), Field("_ps_wm", "TIMESTAMP"))


def decide_storage(
    graph: Graph,
    blocks: Mapping[str, Block],
    views: Mapping[str, ViewPlan],
    owners: Mapping[str, str],
    *,
    in_memory: bool,
) -> tuple[Node, ...]:
    """The nodes in the order in which an epoch visits them: sources, then inputs before consumers.

    Raises:
        DeclarationErrors: PS-DECL-010 for each relation that would grow without bound.
    """
    needs = _needs(blocks, views, in_memory=in_memory)
    order = sorted(blocks, key=lambda name: blocks[name].relation.transient)
    consumers = {name: sum(name in b.inputs for b in blocks.values()) for name in blocks}
    view_nodes = {v.node: v for v in views.values()}
    sunk = {s.view for s in graph.sinks}
    nodes: list[Node] = []
    errors: list[Error] = []
    for name in order:
        block = blocks[name]
        strategy, reason = _strategy(block)
        state = _kept_state(name, blocks, _state(block, needs[name]))
        view = view_nodes.get(name)
        extra = int(view is not None and view.name in sunk)
        for table in state:
            if table.bound.kind == "nothing" and not in_memory and not _acknowledged(graph, name, blocks, owners):
                errors.append(_unbounded(graph, name, table, blocks, owners))
        nodes.append(
            Node(
                block,
                view.name if view else None,
                strategy,
                reason,
                needs[name],
                state,
                consumers[name] + extra,
                view.notes if view else (),
                kept_after(name, blocks),
            )
        )
    if errors:
        raise DeclarationErrors(errors)
    return tuple(nodes)


def _needs(blocks: Mapping[str, Block], views: Mapping[str, ViewPlan], *, in_memory: bool) -> dict[str, Content]:
    needs: dict[str, Content] = {name: _own_content(block) for name, block in blocks.items()}

    def require(name: str, *, table: bool) -> None:
        block = blocks[name]
        current = needs[name]
        table = table or _forgets(block, blocks)
        if isinstance(block, SourceBlock | StepBlock) or (table and isinstance(block, FlatBlock | UnionBlock)):
            needs[name] = "table"
        elif isinstance(block, FlatBlock | UnionBlock) and current == "none":
            needs[name] = "view"
            for source in block.inputs:
                require(source, table=False)

    for block in blocks.values():
        match block:
            case FlatBlock() if len(block.from_) > 1:
                changing = {i.relation for i in block.from_ if not blocks[i.relation].relation.transient}
                for i in block.from_:
                    others = changing - {i.relation}
                    repeated = sum(o.relation == i.relation for o in block.from_) > 1
                    if others or repeated:
                        require(i.relation, table=True)
            case GroupedBlock(strategy="affected groups"):
                require(block.input, table=False)
            case RankedBlock() if block.top is not None and blocks[block.input].relation.append_only:
                pass  # What is no candidate never becomes one.
            case RankedBlock():
                require(block.input, table=False)
            case RefreshBlock():
                for source in block.inputs:
                    require(source, table=False)
            case SourceBlock() if block.source.kind != "stream" or block.source.retention is not None:
                needs[block.relation.name] = "table"
            case _:
                pass
    for late in (block.late for block in blocks.values() if isinstance(block, FlatBlock)):
        # A late row that is joined comes back as the join has it by then.
        if late is not None and isinstance(blocks[late.relation], FlatBlock) and len(blocks[late.relation].inputs) > 1:
            require(late.relation, table=False)
    if in_memory:
        for name, block in blocks.items():
            if isinstance(block, SourceBlock):
                require(name, table=True)
        for view in views.values():
            if isinstance(blocks[view.node], FlatBlock | UnionBlock | StepBlock):
                require(view.node, table=False)
    else:
        for view in views.values():
            _keep_if_cheap(view.node, blocks, needs, require)
    return needs


def _keep_if_cheap(name: str, blocks: Mapping[str, Block], needs: Mapping[str, Content], require: object) -> None:
    """A flat view is readable where all that it reads is stored anyhow, and as long as it shows it."""
    block = blocks[name]
    if _forgets(block, blocks):
        return
    if isinstance(block, FlatBlock | UnionBlock) and all(needs[i] != "none" for i in block.inputs):
        require(name, table=False)  # type: ignore[operator]


def _forgets(block: Block, blocks: Mapping[str, Block]) -> bool:
    """Whether it joins rows that are forgotten while what they joined stays."""
    return isinstance(block, FlatBlock) and any(isinstance(blocks[i], RecentBlock) for i in block.inputs)


def _kept_state(name: str, blocks: Mapping[str, Block], state: tuple[StateTable, ...]) -> tuple[StateTable, ...]:
    """The state tables of a block: nothing bounds them where a reader needs every window that ever closed.

    And nothing bounds the result of an interval join, which grows as its sides forget.
    """
    if _forgets(blocks[name], blocks):
        return tuple(
            replace(t, bound=Bound("nothing", "all rows of an interval join, which are read again")) for t in state
        )
    if kept_after(name, blocks) is not FOR_EVER:
        return state
    readers = ", ".join(readers_for_ever(name, blocks))
    return tuple(replace(t, bound=Bound("nothing", f"every closed window, which {readers} reads again")) for t in state)


def _own_content(block: Block) -> Content:
    match block:
        case GroupedBlock(strategy="merge"):
            return "view"
        case RankedBlock() if block.top is not None:
            return "view"
        case GroupedBlock() | RankedBlock() | SessionBlock() | RecentBlock():
            return "table"
        case RefreshBlock() | FinalBlock() | ConstantBlock():
            return "table"
        case _:
            return "none"


def _strategy(block: Block) -> tuple[Strategy, str]:
    match block:
        case SourceBlock():
            return "input", f"{block.source.kind} as its contract accepts it"
        case FlatBlock() if len(block.from_) > 1:
            return "delta join", "each input's changes against the others as they stand"
        case FlatBlock():
            return "append", "row by row, no state"
        case UnionBlock():
            return "append", "branch by branch, no state"
        case ConstantBlock():
            return "constant", "its rows come once"
        case GroupedBlock():
            return block.strategy, block.reason
        case RankedBlock():
            return _ranked_strategy(block)
        case SessionBlock():
            return "affected sessions", "the sessions that a row falls into are made again"
        case RecentBlock():
            return "recent rows", "kept until no row of the other stream can meet them"
        case FinalBlock():
            return "close", "each window once, when the watermark passes its end"
        case RefreshBlock():
            return "refresh", block.reason
        case StepBlock():
            return "fold", "a function per key, in order of time"


def _state(block: Block, content: Content) -> tuple[StateTable, ...]:
    relation = block.relation
    name = relation.name
    match block:
        case SourceBlock():
            return _source_state(block, content)
        case GroupedBlock(strategy="merge"):
            partials = [Field("_ps_n", "BIGINT", False)]
            for aggregate in block.aggregates:
                partials += partial_fields(aggregate.name, aggregate.kind, aggregate.partial_type)
            columns = (*block.keys, *partials)
            return (StateTable(f"g_{name}", columns, tuple(k.name for k in block.keys), _group_bound(block)),)
        case GroupedBlock():
            columns = (*block.keys, *relation.fields)
            return (StateTable(f"t_{name}", columns, tuple(k.name for k in block.keys), _group_bound(block)),)
        case RankedBlock(top=None):
            return (StateTable(f"t_{name}", ranked.fields(block), (), _ranked_bound(block)),)
        case RankedBlock():
            return (StateTable(f"c_{name}", block.columns, (), _ranked_bound(block)),)
        case SessionBlock():
            bound = (
                Bound("watermark", f"{', '.join(block.window.streams)}, then the correction horizon")
                if block.window is not None
                else Bound("its rows", "of its input")
            )
            return (StateTable(f"t_{name}", relation.fields, (), bound),)
        case RecentBlock():
            span = timedelta(microseconds=max(block.kept_us - 1, 0))
            more = f" {format_duration(span)} more," if span else ""
            bound = Bound("watermark", f"{', '.join(block.window.streams)},{more} then the correction horizon")
            return (StateTable(f"t_{name}", relation.fields, (), bound),)
        case FinalBlock():
            columns = (*final.fields(block), Field("_ps_open", "BOOLEAN", False))
            bound = Bound(
                "watermark", f"{', '.join(block.window.streams)}, kept {block.horizon_seconds:g} s after close"
            )
            return (StateTable(f"t_{name}", columns, relation.key, bound),)
        case ConstantBlock():
            return (StateTable(f"t_{name}", relation.fields, (), Bound("its rows", "a constant")),)
        case RefreshBlock():
            return (StateTable(f"t_{name}", relation.fields, relation.key, Bound("its rows", "the view itself")),)
        case StepBlock():
            keys = block.key_fields
            bound = Bound("key cardinality", ", ".join(k.name for k in keys))
            folded = StateTable(
                f"fold_{name}", (*keys, Field("_ps_state", "VARCHAR", False)), tuple(k.name for k in keys), bound
            )
            timers = StateTable(
                f"timer_{name}",
                (*keys, Field("_ps_at", "TIMESTAMP", False), Field("_ps_timer", "VARCHAR", False)),
                (*(k.name for k in keys), "_ps_at", "_ps_timer"),
                bound,
            )
            kept = (
                (StateTable(f"t_{name}", relation.fields, (), Bound("nothing", "an append-only result")),)
                if content == "table"
                else ()
            )
            return (folded, timers, *kept)
        case FlatBlock() | UnionBlock() if content == "table":
            columns = (*relation.fields, *(HIDDEN_FIELDS if relation.hidden else ()))
            bound = (
                Bound("nothing", "an append-only join") if relation.append_only else Bound("its rows", "of its inputs")
            )
            return (StateTable(f"t_{name}", columns, relation.key, bound),)
        case _:
            return ()


def _source_state(block: SourceBlock, content: Content) -> tuple[StateTable, ...]:
    source, relation = block.source, block.relation
    tables: list[StateTable] = []
    if source.unique:
        columns = tuple(f for f in relation.fields if f.name in source.unique)
        extra = (Field("_ps_at", "TIMESTAMP", False), Field("_ps_body", "VARCHAR", False))
        within = format_duration(source.within) if source.within else ""
        tables.append(
            StateTable(f"u_{source.name}", (*columns, *extra), source.unique, Bound("watermark", f"within {within}"))
        )
    if content != "table":
        return tuple(tables)
    match source.kind:
        case "stream":
            bound = (
                Bound("retention", format_duration(source.retention))
                if source.retention is not None
                else Bound("nothing", "all rows of an append-only stream")
            )
            columns = (*relation.fields, *HIDDEN_FIELDS)
            tables.append(StateTable(f"t_{source.name}", columns, (), bound))
        case "table" if source.key:
            position = (Field("_ps_p", "INTEGER", False), Field("_ps_o", "BIGINT", False))
            live = Field("_ps_live", "BOOLEAN", False)
            bound = Bound("key cardinality", ", ".join(source.key))
            tables.append(
                StateTable(
                    f"t_{source.name}", (*_loosened(relation.fields, source.key), *position, live), source.key, bound
                )
            )
        case "table":
            tables.append(StateTable(f"t_{source.name}", relation.fields, (), Bound("its rows", "a multiset")))
        case "reference":
            tables.append(StateTable(f"t_{source.name}", relation.fields, source.key, Bound("its rows", "one version")))
    return tuple(tables)


def _loosened(fields: tuple[Field, ...], key: tuple[str, ...]) -> tuple[Field, ...]:
    """A deleted row leaves its key alone, so all other columns can be NULL."""
    return tuple(Field(f.name, f.type, f.name not in key) for f in fields)


def partial_fields(name: str, kind: str, partial_type: str) -> list[Field]:
    """The columns in which an aggregate's partial is kept (plan/grouped.py says how they merge)."""
    match kind:
        case "count":
            return [Field(f"{name}_n", "BIGINT", False)]
        case "sum" | "avg":
            return [Field(f"{name}_s", partial_type), Field(f"{name}_n", "BIGINT", False)]
        case "bool_and" | "bool_or":
            return [Field(f"{name}_t", "BIGINT", False), Field(f"{name}_n", "BIGINT", False)]
        case _:
            return [Field(f"{name}_s", partial_type)]


def _ranked_strategy(block: RankedBlock) -> tuple[Strategy, str]:
    """How a ranked block is maintained, and why."""
    if block.top is not None:
        each = "of each partition" if block.keys else "of all"
        return "top rows", f"the first {block.top.at_most} {each} decide alone"
    if block.keys:
        return "affected partitions", "what the windows partition by is computed again where it is touched"
    if block.order is not None:
        return "affected rows", "what comes from the first row that moves on is told again: no window looks ahead"
    return "refresh", "a window over all rows: they are one partition"


def _ranked_bound(block: RankedBlock) -> Bound:
    if block.window is not None:
        return Bound("watermark", f"{', '.join(block.window.streams)}, then the correction horizon")
    if block.top is None:
        return Bound("its rows", "of its input")
    if block.keys:
        return Bound("key cardinality", f"{block.top.at_most} rows for each partition")
    return Bound("its rows", f"the first {block.top.at_most}")


def _group_bound(block: GroupedBlock) -> Bound:
    if block.window is not None:
        return Bound("watermark", f"{', '.join(block.window.streams)}, then the correction horizon")
    if not block.keys:
        return Bound("one row")
    outputs = [column for column, _ in block.outputs]
    return Bound("key cardinality", ", ".join(block.relation.key or tuple(outputs)))


def _acknowledged(graph: Graph, name: str, blocks: Mapping[str, Block], owners: Mapping[str, str]) -> bool:
    block = blocks[name]
    if isinstance(block, SourceBlock):
        if block.source.state == "unbounded":
            return True
        readers = {owners.get(n) for n in _dependants(name, blocks)}
        views = [v for v in graph.views if v.name in readers]
        return any(v.state == "unbounded" for v in views)
    again = readers_for_ever(name, blocks) if _windowed(block) else ()
    owned = [graph.view(owners.get(n, n)) for n in (name, *again)]
    return any(view is not None and view.state == "unbounded" for view in owned)


def _windowed(block: Block) -> bool:
    return isinstance(block, Windowed) and block.window is not None


def _dependants(name: str, blocks: Mapping[str, Block]) -> set[str]:
    found: set[str] = set()
    for other, block in blocks.items():
        if name in block.inputs or found & set(block.inputs):
            found.add(other)
    return found


def _unbounded(
    graph: Graph, name: str, table: StateTable, blocks: Mapping[str, Block], owners: Mapping[str, str]
) -> Error:
    block = blocks[name]
    where = graph.where
    hint = "give the stream retention='7 days', or state='unbounded' to accept that it grows for ever"
    if _windowed(block):
        readers = [owners.get(n, n) for n in readers_for_ever(name, blocks)]
        where = next((view.where for n in readers if (view := graph.view(n)) is not None), where)
        name = owners.get(name, name)
        got = f"{', '.join(readers)} is computed again from every closed window of {name}"
        hint = f"group {readers[0]} by a window of {name} too, or give it state='unbounded' to keep all windows"
    elif isinstance(block, SourceBlock):
        where = block.source.where
        readers = sorted({owners[n] for n in _asking(name, blocks) if n in owners})
        got = f"{', '.join(readers) or 'a view'} must keep every row of {name}"
    else:
        view = graph.view(owners.get(name, name))
        where = view.where if view else where
        got = table.bound.detail
        if _forgets(block, blocks):
            hint = "read the join by windows of event time, or give its view state='unbounded' to keep all of its rows"
    return DeclarationError(
        "PS-DECL-010",
        f"nothing bounds the state of {name}",
        where=where,
        expected="a bound: a window, a retention, or a key",
        got=got,
        hint=hint,
    )


def _asking(name: str, blocks: Mapping[str, Block]) -> set[str]:
    """The blocks that read the rows of `name` again: by themselves, or through blocks that store nothing."""
    passed, found = {name}, set()
    for other, block in blocks.items():
        if passed & set(block.inputs):
            if isinstance(block, FlatBlock | UnionBlock):
                passed.add(other)
            if _keeps(block, blocks):
                found.add(other)
    return found


def _keeps(block: Block, blocks: Mapping[str, Block]) -> bool:
    if isinstance(block, FlatBlock):
        return len(block.from_) > 1
    if isinstance(block, GroupedBlock):
        return block.strategy != "merge"
    if isinstance(block, RankedBlock):
        return block.top is None or not blocks[block.input].relation.append_only
    return isinstance(block, RefreshBlock)
