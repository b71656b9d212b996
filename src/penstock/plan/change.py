"""What becomes of a state when its pipeline has changed: what is reused, rebuilt, added, dropped, and what is refused.

A state describes the plan that it belongs to (`described`, as JSON): for each relation its *meaning* (its block, with
the meanings of what it reads) and its *layout* (what it stores). Formatting, comments and places in files are no part
of a meaning. A relation with the meaning and layout that it had is reused; else it is built again from contents that
the state holds. What they do not hold needs the sources from their beginning: `Change.again` names it.

Invariant: what is built from stored contents is what the new plan would hold had it read everything itself. So windows
with late rows (which are told by the watermark before each row), and windows that have been forgotten, are not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace

import sqlglot

from penstock.pipeline import SourceDecl
from penstock.plan.blocks import (
    Block,
    FlatBlock,
    RefreshBlock,
    SourceBlock,
    StepBlock,
    UnionBlock,
    Windowed,
)
from penstock.plan.parse import DIALECT
from penstock.plan.plan import Plan

_WIDER = {
    "TINYINT": ("SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    "SMALLINT": ("INTEGER", "BIGINT", "HUGEINT"),
    "INTEGER": ("BIGINT", "HUGEINT"),
    "BIGINT": ("HUGEINT",),
    "UTINYINT": ("USMALLINT", "UINTEGER", "UBIGINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    "USMALLINT": ("UINTEGER", "UBIGINT", "INTEGER", "BIGINT", "HUGEINT"),
    "UINTEGER": ("UBIGINT", "BIGINT", "HUGEINT"),
    "UBIGINT": ("HUGEINT",),
    "FLOAT": ("DOUBLE",),
}
Columns = tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True)
class SourceNote:
    """A source as a state remembers it. shape: all but its columns and rules; columns: name, type, nullable."""

    kind: str
    shape: Mapping[str, str]
    columns: Columns
    rules: str


@dataclass(frozen=True)
class NodeNote:
    """A relation as a state remembers it. owner: its view; inputs: what it reads; content: as in `Node`."""

    meaning: str
    layout: str
    content: str
    owner: str
    state: tuple[str, ...]
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class ViewNote:
    """What the records of a view's sinks look like."""

    node: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]


@dataclass(frozen=True)
class PlanNote:
    """A plan as its state remembers it. sinks: name -> view."""

    sources: Mapping[str, SourceNote]
    nodes: Mapping[str, NodeNote]
    views: Mapping[str, ViewNote]
    sinks: Mapping[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> PlanNote:
        raw = json.loads(text)
        return PlanNote(
            {
                n: SourceNote(s["kind"], s["shape"], tuple((a, b, bool(c)) for a, b, c in s["columns"]), s["rules"])
                for n, s in raw["sources"].items()
            },
            {n: NodeNote(**(x | {w: tuple(x[w]) for w in ("state", "inputs")})) for n, x in raw["nodes"].items()},
            {
                n: ViewNote(v["node"], tuple((a, b) for a, b in v["columns"]), tuple(v["key"]))
                for n, v in raw["views"].items()
            },
            raw["sinks"],
        )


# -- describing --------------------------------------------------------------------------------------------------------


def described(plan: Plan) -> PlanNote:
    """What a state of `plan` remembers of it."""
    meanings = _meanings(plan)
    nodes = {
        n.name: NodeNote(
            meanings[n.name],
            _hash(repr([(t.name, t.columns if not isinstance(n.block, SourceBlock) else (), t.key) for t in n.state])),
            n.content,
            plan.owner(n.name),
            tuple(t.name for t in n.state),
            n.block.inputs,
        )
        for n in plan.nodes
    }
    views = {
        name: ViewNote(node.name, tuple((f.name, f.type) for f in node.relation.fields), node.relation.key)
        for name, node in ((name, plan.node(plan.node_of(name))) for name in _readable(plan))
    }
    sources = {s.source.name: _source(s.source) for s in plan.sources}
    return PlanNote(sources, nodes, views, {s.name: s.view for s in plan.graph.sinks})


def _readable(plan: Plan) -> Iterator[str]:
    yield from (v.name for v in plan.views)
    yield from (s.source.name for s in plan.sources)


def _source(source: SourceDecl) -> SourceNote:
    schema = source.schema
    shape = {
        "event_time": source.event_time or "",
        "watermark": str(source.watermark or ""),
        "key": ", ".join(source.key),
        "version": source.version or "",
        "retention": str(source.retention or ""),
        "unique": ", ".join(source.unique),
        "within": str(source.within or ""),
        "clock": str(source.clock or ""),
        "transient": "yes" if source.transient else "",
    }
    rules = repr(
        (schema.checks, schema.foreign_keys, schema.extra, [(c.name, c.rules, c.default) for c in schema.columns])
    )
    columns = tuple((c.name, c.type, c.nullable) for c in schema.columns)
    return SourceNote(source.kind, {k: v for k, v in shape.items() if v}, columns, _hash(rules))


def _meanings(plan: Plan) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in plan.nodes:
        below = [found[name] for name in node.block.inputs]
        kept = node.kept_after if not isinstance(node.block, SourceBlock) else ()
        found[node.name] = _hash(repr((_text(node.block), kept, below)))
    return found


def _text(block: Block) -> str:
    match block:
        case SourceBlock():
            return repr((block.source.name, block.source.kind))
        case StepBlock():
            function = f"{block.step.function.__module__}.{block.step.function.__qualname__}"
            return repr((block.relation, block.input, block.key_fields, block.time, function))
        case RefreshBlock():
            tree = sqlglot.parse_one(block.sql, dialect=DIALECT)
            return repr(replace(block, sql=tree.sql(DIALECT, comments=False), reason=""))
        case _:
            return repr(block)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# -- comparing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A changed plan against the state that is there.

    build: relations to build, in the order of the plan. drop: relations that go. again: relation -> why the sources
    must be read again for it. contracts: source -> what changed in it, compatibly. refused: why the state cannot be
    kept at all. sinks_new, sinks_gone: by name; sinks_told: sink -> its view, which is built again.
    """

    old: PlanNote
    new: PlanNote
    build: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    again: Mapping[str, str] = field(default_factory=dict)
    contracts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    sinks_new: tuple[str, ...] = ()
    sinks_gone: tuple[str, ...] = ()

    @property
    def keeps(self) -> bool:
        """Whether the state goes on without its sources being read again."""
        return not self.again and not self.refused

    @property
    def loses(self) -> tuple[str, ...]:
        """What is deleted: views, sources and sinks that are no longer declared, where the state holds rows of them."""
        views = {n.owner for name, n in self.old.nodes.items() if name in self.drop and n.state}
        gone = sorted(v for v in views if v not in self.new.views)
        return (*gone, *(f"sink {name}" for name in self.sinks_gone))

    def views(self, what: str) -> tuple[str, ...]:
        """The declared views that are `reused`, `rebuilt`, `added` or `dropped`."""
        built = {self.new.nodes[n].owner for n in self.build}
        old, new = set(self.old.views), set(self.new.views)
        chosen = {
            "reused": (old & new) - built,
            "rebuilt": (old & new) & built,
            "added": new - old,
            "dropped": old - new,
        }[what]
        names = (*self.new.views, *self.old.views)
        return tuple(dict.fromkeys(n for n in names if n in chosen))


def compare(old: PlanNote, plan: Plan, *, unread: frozenset[str], forgotten: frozenset[str]) -> Change:
    """What a state described by `old` has to do to become one of `plan`.

    Args:
        unread: sources of which the state has read nothing.
        forgotten: relations of which closed windows have been forgotten.
    """
    new = described(plan)
    refused, contracts = _contracts(old, new)
    same = {n for n, x in new.nodes.items() if n in old.nodes and old.nodes[n].meaning == x.meaning}
    build = tuple(
        n.name for n in plan.nodes if n.name not in same or old.nodes[n.name].layout != new.nodes[n.name].layout
    )
    holds = _Holds(old, plan, frozenset(same), frozenset(build), unread, forgotten)
    again = {name: why for name in build if (why := holds.why_not_built(name))}
    sinks_new = tuple(s for s, view in new.sinks.items() if old.sinks.get(s) != view)
    for sink in sinks_new:
        node = new.views[new.sinks[sink]].node
        if node not in build and (why := holds.why_not(node)):
            again[node] = f"sink {sink} is new: {why}"
    refused += _sinks(old, new, frozenset(build), holds)
    return Change(
        old,
        new,
        build,
        tuple(n for n in old.nodes if n not in new.nodes),
        again,
        contracts,
        tuple(refused),
        sinks_new,
        tuple(s for s, view in old.sinks.items() if new.sinks.get(s) != view),
    )


def needed_again(plan: Plan, change: Change) -> Plan:
    """The part of the plan that reads the sources again: what `change.again` names, and all below it."""
    wanted = set(change.again)
    for node in reversed(plan.nodes):
        if node.name in wanted:
            wanted |= set(node.block.inputs)
    sinks = tuple(s for s in plan.graph.sinks if s.name in change.sinks_new and plan.node_of(s.view) in change.again)
    nodes = tuple(n for n in plan.nodes if n.name in wanted)
    views = tuple(v for v in plan.views if v.node in wanted)
    return replace(plan, graph=replace(plan.graph, sinks=sinks), nodes=nodes, views=views)


def _sinks(old: PlanNote, new: PlanNote, build: frozenset[str], holds: _Holds) -> list[str]:
    """Sinks that have told rows which the change cannot take back."""
    found = []
    for sink, view in new.sinks.items():
        if old.sinks.get(sink) != view:
            continue
        was, now = old.views[view], new.views[view]
        if was.columns != now.columns or was.key != now.key:
            found.append(f"sink {sink}: the columns or the key of {view} are not those of the records that it has")
        elif now.node in build and (forgotten := holds.forgotten_under(was.node)) and not holds.forgets(view):
            found.append(f"sink {sink}: closed windows of {forgotten}, which {view} was made of, have been forgotten")
        elif now.node in build and not holds.told(was.node):
            found.append(f"sink {sink}: the rows that {view} gave it are not kept, so they cannot be taken back")
    return found


@dataclass(frozen=True)
class _Holds:
    """What contents the state can give."""

    old: PlanNote
    plan: Plan
    same: frozenset[str]
    build: frozenset[str]
    unread: frozenset[str]
    forgotten: frozenset[str]

    def why_not(self, name: str) -> str:
        """Why the content of a relation that means what it meant cannot be had; empty where it can."""
        block = self.plan.node(name).block
        if name in self.forgotten:
            return f"closed windows of {name} have been forgotten"
        if isinstance(block, SourceBlock) and (name in self.unread or name not in self.old.nodes):
            return ""
        if name in self.same and self.old.nodes[name].content != "none":
            return ""
        if isinstance(block, FlatBlock | UnionBlock):
            return next((why for i in block.inputs if (why := self.why_not(i))), "")
        return f"the rows of {name} are not kept"

    def why_not_built(self, name: str) -> str:
        """Why a relation cannot be built from stored contents; empty where it can."""
        block = self.plan.node(name).block
        if isinstance(block, SourceBlock):
            return self.why_not(name)
        late = [rule for node, rule in self.plan.late_blocks if node.name == name and rule.stream not in self.unread]
        if late:
            return f"which rows of {late[0].stream} are late is told by the order in which they came"
        for below in block.inputs:
            why = self.why_not_built(below) if below in self.build else self.why_not(below)
            if why:
                return why
        return ""

    def forgotten_under(self, node: str) -> str:
        """A relation that an old one was computed from and that has forgotten windows; empty where there is none."""
        if node in self.forgotten:
            return node
        return next((found for i in self.old.nodes[node].inputs if (found := self.forgotten_under(i))), "")

    def forgets(self, view: str) -> bool:
        """Whether a view forgets its windows itself, and nothing below it has: then both of them know the same."""
        node = self.plan.node(self.plan.node_of(view))
        windowed = isinstance(node.block, Windowed) and node.block.window is not None
        strangers = {self.old.nodes[n].owner for n in self.forgotten} - {view}
        return windowed and node.kept_after is not None and not strangers & self._owners_under(node.name)

    def _owners_under(self, name: str) -> set[str]:
        below = self.plan.node(name).block.inputs
        return {self.plan.owner(i) for i in below}.union(*(self._owners_under(i) for i in below))

    def told(self, node: str) -> bool:
        """Whether the old content of a view can be read."""
        return self.old.nodes[node].content != "none" or set(self.unread) >= set(self.old.sources)


def _contracts(old: PlanNote, new: PlanNote) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    refused: list[str] = []
    changed: dict[str, tuple[str, ...]] = {}
    for name, now in new.sources.items():
        was = old.sources.get(name)
        if was is None:
            continue
        if was.kind != now.kind:
            refused.append(f"{name} was a {was.kind} and is a {now.kind}")
        for word in sorted({*was.shape, *now.shape}):
            before, after = was.shape.get(word, "none"), now.shape.get(word, "none")
            if before != after:
                refused.append(f"{name}: {word.replace('_', ' ')} was {before} and is {after}")
        wrong, told = _columns(name, was.columns, now.columns)
        refused += wrong
        if was.rules != now.rules:
            told.append("other rules, for the records that come from now on")
        if told:
            changed[name] = tuple(told)
    return refused, changed


def _columns(source: str, was: Columns, now: Columns) -> tuple[list[str], list[str]]:
    wrong: list[str] = []
    told: list[str] = []
    before = {name: (type, nullable) for name, type, nullable in was}
    for name, type, nullable in now:
        if name not in before:
            if nullable:
                told.append(f"new column {name}, NULL in what was read before")
            else:
                wrong.append(f"{source}: the new column {name} may not be NULL, and earlier records have none")
            continue
        old_type, old_nullable = before.pop(name)
        if old_type != type:
            if _widens(old_type, type):
                told.append(f"{name} is {type}, was {old_type}")
            else:
                wrong.append(f"{source}: {name} was {old_type} and is {type}, which cannot hold all that was read")
        if old_nullable and not nullable:
            wrong.append(f"{source}: {name} may not be NULL any more, and earlier records may have NULL there")
        elif nullable and not old_nullable:
            told.append(f"{name} may be NULL")
    wrong += [f"{source}: the column {name} is gone" for name in before]
    return wrong, told


def _widens(old: str, new: str) -> bool:
    """Whether every value of `old` is a value of `new`.

    Example:
        >>> _widens("INTEGER", "BIGINT"), _widens("DECIMAL(9,2)", "DECIMAL(12,2)"), _widens("BIGINT", "INTEGER")
        (True, True, False)
    """
    if new in _WIDER.get(old, ()):
        return True
    if not (old.startswith("DECIMAL(") and new.startswith("DECIMAL(")):
        return False
    (digits, scale), (more, places) = (_digits(t) for t in (old, new))
    return places >= scale and more - places >= digits - scale


def _digits(decimal: str) -> tuple[int, int]:
    digits, scale = decimal.removeprefix("DECIMAL(").removesuffix(")").split(",")
    return int(digits), int(scale)
