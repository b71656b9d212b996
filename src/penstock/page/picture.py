"""The graph of a pipeline as a picture: items in layers, sources first, each behind all that it reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from penstock.graph import Graph
from penstock.plan.blocks import Field, Node
from penstock.plan.plan import Plan
from penstock.runtime.masking import masked_columns


@dataclass(frozen=True)
class Column:
    """One column of a table; masked: its values are personal data that is not shown."""

    name: str
    type: str
    masked: bool = False


@dataclass(frozen=True)
class Item:
    """A source, view, step or sink. layer, row: its place; kept: whether its rows can be looked at.

    blocks: strategy and reason of each block; bound: what limits its state; tables: the state tables of its blocks.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    layer: int
    row: int
    columns: tuple[Column, ...] = ()
    key: tuple[str, ...] = ()
    kept: bool = False
    detail: str = ""
    sql: str = ""
    bound: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """All items of a pipeline."""

    pipeline: str
    items: tuple[Item, ...]

    def item(self, name: str) -> Item | None:
        """The source, view or step of that name."""
        return next((i for i in self.items if i.name == name and i.kind != "sink"), None)

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return asdict(self)


def picture(plan: Plan, *, reveal: bool = False) -> Picture:
    """The picture of a compiled pipeline. reveal: personal data is shown."""
    graph = plan.graph
    hidden: frozenset[str] = frozenset() if reveal else masked_columns(graph)
    reads = _reads(plan)
    layers = _layers(reads)
    made = [_item(plan, name, below, layers[name], hidden) for name, below in reads.items()]
    made += [Item(s.name, "sink", (s.view,), layers[s.view] + 1, 0, detail=f"changes of {s.view}") for s in graph.sinks]
    return Picture(graph.name, tuple(_rows(made)))


def _reads(plan: Plan) -> dict[str, tuple[str, ...]]:
    """What each source, view and step reads of the others."""
    by_node = {v.node: v.name for v in plan.views} | {b.source.name: b.source.name for b in plan.sources}
    by_node |= {n.name: n.view for n in plan.nodes if n.view is not None}
    found: dict[str, tuple[str, ...]] = {b.source.name: () for b in plan.sources}
    for view in plan.views:
        below: dict[str, None] = {}
        waiting = list(plan.node(view.node).block.inputs)
        while waiting:
            name = waiting.pop(0)
            if by_node.get(name, view.name) != view.name:
                below[by_node[name]] = None
            else:
                waiting += plan.node(name).block.inputs
        found[view.name] = tuple(below)
    return found


def _layers(reads: dict[str, tuple[str, ...]]) -> dict[str, int]:
    found: dict[str, int] = {}

    def layer(name: str) -> int:
        if name not in found:
            found[name] = max((layer(below) + 1 for below in reads[name]), default=0)
        return found[name]

    for name in reads:
        layer(name)
    return found


def _item(plan: Plan, name: str, reads: tuple[str, ...], layer: int, hidden: frozenset[str]) -> Item:
    graph = plan.graph
    node = plan.node(plan.node_of(name))
    own = [n for n in plan.nodes if plan.owner(n.name) == name or n.name == node.name]
    view = plan.view(name)
    shown = view.columns if view else node.relation.columns
    return Item(
        name,
        _kind(graph, name),
        reads,
        layer,
        0,
        tuple(_column(f, hidden) for f in node.relation.fields if f.name in shown),
        view.key if view else node.relation.key,
        kept=node.content != "none",
        detail=_detail(graph, name),
        sql=next((v.sql for v in graph.views if v.name == name), ""),
        bound=tuple(dict.fromkeys(str(t.bound) for n in own for t in n.state)),
        blocks=() if view is None else tuple(dict.fromkeys(_block(n) for n in own)),
        tables=tuple(dict.fromkeys(t.name for n in own for t in n.state)),
    )


def _column(field: Field, hidden: frozenset[str]) -> Column:
    return Column(field.name, field.type, field.name.lower() in hidden)


def _block(node: Node) -> str:
    return f"{type(node.block).__name__.removesuffix('Block').lower()}: {node.strategy}, {node.reason}"


def _kind(graph: Graph, name: str) -> str:
    source = graph.source(name)
    if source is not None:
        return "clock" if source.clock is not None else source.kind
    return "step" if graph.step(name) is not None else "view"


def _detail(graph: Graph, name: str) -> str:
    source = graph.source(name)
    if source is not None:
        key = f"key {', '.join(source.key)}" if source.key else ""
        watermark = f"watermark {source.watermark} behind {source.event_time}" if source.watermark is not None else ""
        return "; ".join(filter(None, (key, watermark)))
    view, step = graph.view(name), graph.step(name)
    if step is not None:
        return f"a state machine over {step.input}, per {', '.join(step.key)}"
    return f"emits {view.emit}" if view is not None else ""


def _rows(items: list[Item]) -> list[Item]:
    """Each item beside the middle of what it reads, or as near to it as those above leave room: fewer lines cross."""
    placed: dict[str, int] = {}
    found: list[Item] = []
    for layer in sorted({i.layer for i in items}):
        free = 0
        middles = {id(i): sum(placed.get(r, 0) for r in i.reads) / max(1, len(i.reads)) for i in items}
        for item in sorted((i for i in items if i.layer == layer), key=lambda i: middles[id(i)]):
            row = max(free, round(middles[id(item)]))
            free = row + 1
            if item.kind != "sink":
                placed[item.name] = row
            found.append(replace(item, row=row))
    return found
