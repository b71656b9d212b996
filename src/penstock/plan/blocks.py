"""The closed union of blocks: every relation of a plan is exactly one of these.

Each block is frozen data: SQL fragments in DuckDB's dialect over its inputs' columns, written `"alias"."column"`.
Blocks know nothing of engines. A relation's *delta* in an epoch has its columns plus the weight `_ps_w` (+1 or -1);
its *content* is what all deltas so far fold to. Relations with `hidden` set carry the position and watermark of the
stream row that they come from: `_ps_p` (partition), `_ps_o` (offset), `_ps_wm` (watermark before the row, NULL where
nothing could be late).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from penstock.pipeline import SourceDecl, StepDecl

Strategy = Literal[
    "append",
    "merge",
    "affected groups",
    "affected partitions",
    "affected rows",
    "top rows",
    "affected sessions",
    "recent rows",
    "delta join",
    "refresh",
    "fold",
    "input",
    "close",
    "constant",
]
Content = Literal["table", "view", "none"]
HIDDEN = ("_ps_p", "_ps_o", "_ps_wm")


@dataclass(frozen=True)
class Field:
    """One column of a relation."""

    name: str
    type: str
    nullable: bool = True


@dataclass(frozen=True)
class Closing:
    """An expression of event time over rows that come when a window closes (semantics T3).

    The expression is `column`, or `column + plus`. Templates hold `_ps_event` in place of a value of it. end: the
    watermark at which rows of that value come; last: the watermark at which no more rows of earlier values come.
    """

    column: str
    plus: str
    end: str
    last: str


@dataclass(frozen=True)
class Hop:
    """A column that holds the starts of hopping windows of the relation's event time. size, slide: SQL intervals."""

    column: str
    size: str
    slide: str


@dataclass(frozen=True)
class Relation:
    """What every block gives: named columns, and what is known of them.

    key: columns that are unique in the content, () where none is known. append_only: deltas only ever insert.
    event: the SQL (over this relation's columns, unqualified) that is the event time of `stream`, None where there is
    none. streams: the event-time streams in the lineage (their watermarks close the relation's windows). closings:
    event times of rows that come when windows close (they follow from the blocks: no fingerprint needs them). hops:
    the hopping windows that its rows were expanded by. several: rows may share a position. single: one row at most.
    """

    name: str
    fields: tuple[Field, ...]
    key: tuple[str, ...] = ()
    append_only: bool = False
    hidden: bool = False
    stream: str | None = None
    event: str | None = None
    streams: tuple[str, ...] = ()
    transient: bool = False
    closings: tuple[Closing, ...] = field(default=(), repr=False)
    hops: tuple[Hop, ...] = field(default=(), repr=False)
    several: bool = field(default=False, repr=False)
    single: bool = field(default=False, repr=False)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)


@dataclass(frozen=True)
class Bound:
    """What limits the stored rows of a relation; kind `nothing` is refused unless acknowledged."""

    kind: Literal["key cardinality", "watermark", "retention", "its rows", "one row", "nothing", "no state"]
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


@dataclass(frozen=True)
class StateTable:
    """A table that a block keeps between epochs (semantics S1)."""

    name: str
    columns: tuple[Field, ...]
    key: tuple[str, ...]
    bound: Bound
    layout: int = 1


@dataclass(frozen=True)
class SourceBlock:
    """A declared source: its delta is what the contract accepted in the epoch."""

    relation: Relation
    source: SourceDecl
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Input:
    """One relation in a FROM clause; `on` is SQL over aliases, None for the first.

    The columns of a semi and of an anti join's right side are known in its `on` alone.
    """

    relation: str
    alias: str
    join: Literal["from", "inner", "left", "semi", "anti"] = "from"
    on: str | None = None

    @property
    def certain(self) -> bool:
        """Whether every row of the join has a row of it."""
        return self.join in ("from", "inner")


@dataclass(frozen=True)
class Late:
    """Which rows of a windowed block are late: rows of `relation` whose `window_end` is at or before their `_ps_wm`.

    window_start and window_end are SQL over `alias`; end_of_event is the window's end over a column `_ps_event`.
    """

    stream: str
    relation: str
    alias: str
    window_start: str
    window_end: str
    end_of_event: str


@dataclass(frozen=True)
class FlatBlock:
    """Scan, filter, project, join. columns: (name, SQL) in the order of `relation.fields`."""

    relation: Relation
    from_: tuple[Input, ...]
    columns: tuple[tuple[str, str], ...]
    where: tuple[str, ...] = ()
    late: Late | None = None
    hidden_alias: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(i.relation for i in self.from_))


@dataclass(frozen=True)
class ConstantBlock:
    """VALUES, or a SELECT without FROM: `sql` reads nothing."""

    relation: Relation
    sql: str
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnionBlock:
    """UNION ALL of relations with the same columns by position."""

    relation: Relation
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Aggregate:
    """One aggregate: `sql` is the whole call over the input's columns (with DISTINCT, ORDER BY and FILTER).

    kind: how it merges, `opaque` where it does not. argument, filter: input columns (both may be None).
    """

    name: str
    sql: str
    kind: Literal["count", "sum", "avg", "min", "max", "bool_and", "bool_or", "opaque"]
    argument: str | None
    filter: str | None
    type: str
    partial_type: str = ""


@dataclass(frozen=True)
class Window:
    """The group key that is a window of event time: key column, its end as SQL over the key, the length as SQL."""

    key: str
    end: str
    length: str
    streams: tuple[str, ...]


@dataclass(frozen=True)
class GroupedBlock:
    """GROUP BY. keys: the input's columns that form the key; outputs: (name, SQL over keys and aggregate names).

    DISTINCT is a group by all columns without aggregates. having: SQL over keys and aggregate names. noisy: as in
    `RefreshBlock`.
    """

    relation: Relation
    input: str
    keys: tuple[Field, ...]
    aggregates: tuple[Aggregate, ...]
    outputs: tuple[tuple[str, str], ...]
    having: str | None
    window: Window | None
    strategy: Literal["merge", "affected groups"]
    reason: str
    noisy: tuple[str, ...] = field(default=(), repr=False)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True)
class Top:
    """Only rows within the first places count. place: the rank as a window function; at_most: the last place."""

    place: str
    at_most: int


@dataclass(frozen=True)
class Order:
    """The column that all window functions of a SELECT order by first, where none of them looks at later rows."""

    column: Field
    descending: bool
    nulls_first: bool


@dataclass(frozen=True)
class RankedBlock:
    """Window functions over partitions. keys: the input's columns that all of them partition by.

    columns: the input's own. outputs: (name, SQL over the input's columns, with window functions); qualify: which rows
    stay. top: set where the first places of each partition decide alone. order: set where there are no keys, and rows
    before the first one that moves stay as they are. window: the window of event time among the
    keys. noisy: as in `RefreshBlock`.
    """

    relation: Relation
    input: str
    columns: tuple[Field, ...]
    keys: tuple[Field, ...]
    outputs: tuple[tuple[str, str], ...]
    qualify: str | None
    top: Top | None
    order: Order | None
    window: Window | None
    noisy: tuple[str, ...] = field(default=(), repr=False)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True)
class SessionBlock:
    """The input's rows with the session that each is in: `window_start`, `window_end`.

    columns: the input's own, with `_ps_at`, the time; keys: those that hold a session together. window: set where the
    watermark closes sessions for good.
    """

    relation: Relation
    input: str
    columns: tuple[Field, ...]
    keys: tuple[Field, ...]
    gap: str
    window: Window | None

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True)
class RecentBlock:
    """One stream's side of an interval join: the input's rows, until the watermark has passed what they may meet.

    at: the event time as SQL over the columns; kept_us: how long after it a row is kept; window: `at` and that.
    """

    relation: Relation
    input: str
    at: str
    kept_us: int
    window: Window

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True)
class FinalBlock:
    """`emit = 'final'` over windowed groups or ranks: each row once, when the watermark passes its window's end.

    keys: the hidden key columns of the group or partition.
    """

    relation: Relation
    input: str
    keys: tuple[Field, ...]
    window: Window
    horizon_seconds: float

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True)
class RefreshBlock:
    """Recompute and diff: `sql` over the contents of `inputs`. Always right; `reason` says why nothing better.

    noisy: columns whose last digits depend on the order of additions (plan/noise.py), no part of a plan's fingerprint.
    """

    relation: Relation
    sql: str
    inputs: tuple[str, ...]
    reason: str
    late: tuple[Late, ...] = ()
    noisy: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class StepBlock:
    """A fold per key with timers (semantics B1)."""

    relation: Relation
    step: StepDecl
    input: str
    key_fields: tuple[Field, ...]
    time: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


Block = (
    SourceBlock
    | ConstantBlock
    | FlatBlock
    | UnionBlock
    | GroupedBlock
    | RankedBlock
    | SessionBlock
    | RecentBlock
    | FinalBlock
    | RefreshBlock
    | StepBlock
)
# The blocks whose rows a watermark may close.
Windowed = GroupedBlock | RankedBlock | SessionBlock | RecentBlock | FinalBlock


@dataclass(frozen=True)
class Node:
    """A block in a plan, with what the plan decided about it.

    view: the declared view or step whose result this is, None for inner blocks. content: how the content is kept.
    state: its state tables. reason: why this strategy. kept_after: what is added to the end of a closed window before
    its rows are forgotten (SQL intervals, beside the correction horizon), None where they stay for ever.
    """

    block: Block
    view: str | None
    strategy: Strategy
    reason: str
    content: Content = "none"
    state: tuple[StateTable, ...] = ()
    consumers: int = 0
    notes: tuple[str, ...] = field(default=())
    kept_after: tuple[str, ...] | None = ()

    @property
    def name(self) -> str:
        return self.block.relation.name

    @property
    def relation(self) -> Relation:
        return self.block.relation


def quote(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def content_name(relation: Relation) -> str:
    """The SQL name of a relation's content: with its hidden columns where it has them."""
    return f"_ps.{quote('h_' + relation.name)}" if relation.hidden else quote(relation.name)


def same(left: str, right: str, fields: tuple[Field, ...] | list[Field]) -> str:
    """The condition that two aliases agree on the fields. `=` only where no NULL can be: it is much faster."""
    conditions = [
        f"{left}.{quote(f.name)} {'IS NOT DISTINCT FROM' if f.nullable else '='} {right}.{quote(f.name)}"
        for f in fields
    ]
    return " AND ".join(conditions) or "TRUE"


def column_list(names: tuple[str, ...] | list[str], alias: str = "") -> str:
    """The names, quoted, with an alias in front of each if given."""
    prefix = f"{quote(alias)}." if alias else ""
    return ", ".join(prefix + quote(name) for name in names)
