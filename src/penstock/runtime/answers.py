"""What `status`, `sql`, `dlq` and `late` ask of a state, as plain data.

The same function answers in the running job (through the control channel) and over the file when no job runs, so that a
person sees the same thing either way.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa

from penstock.engines.base import DeadLetter, LetterQuery
from penstock.engines.duckdb.engine import DuckState
from penstock.errors import DataError, Error, RunError
from penstock.plan.blocks import Node
from penstock.plan.plan import Plan

Answer = dict[str, object]
MAX_ROWS = 10_000
# Of so many epochs `status` says how often a view was computed again.
LAST_EPOCHS = 1_000


def answer(state: DuckState, request: Mapping[str, object]) -> Answer:
    """Do one request: `{"do": NAME, ...}`.

    Raises:
        Error: what the request itself is told.
    """
    match request.get("do"):
        case "status":
            return status(state)
        case "sql":
            return rows_of(asked(state.plan, state.query, str(request["query"])))
        case "dlq.ls":
            return _letters(state, request)
        case "dlq.show":
            return {"letter": letter(_one(state, str(request["id"])))}
        case "dlq.replay":
            return {"requested": state.request_replay(_replayable(state, request))}
        case "dlq.drop":
            return {"dropped": state.drop_letters(_meant(state, request))}
        case "late.ls":
            return rows_of(_late(state, request))
        case "late.apply":
            return {"requested": state.request_late(_late_positions(state, request))}
        case "journal":
            return rows_of(state.query("SELECT entry FROM _ps.journal ORDER BY epoch"), limit=None)
        case other:
            raise RunError("PS-RUN-004", "the request is unknown", expected="a verb of this version", got=str(other))


def status(state: DuckState) -> Answer:
    """Where everything stands: rows in = accepted + duplicate + dead for each source, late beside it per view."""
    progress = state.progress
    sources: dict[str, object] = {}
    for block in state.plan.sources:
        name = block.source.name
        stood = progress.sources[name]
        sources[name] = {
            "kind": block.source.kind,
            **vars(stood.counts),
            "watermark": instant(stood.watermark_us),
            "version": stood.version,
            "partitions": {
                str(p): {"next_offset": x.next_offset, "idle": p in stood.idle}
                for p, x in sorted(stood.partitions.items())
            },
        }
    return {
        "pipeline": state.plan.graph.name,
        "epoch": progress.epoch,
        "state_id": progress.state_id,
        "sources": sources,
        "views": _views(state),
        "computed_again": _computed_again(state),
        "open_dead_letters": state.count_dead_letters(LetterQuery(status="dead")),
    }


def _views(state: DuckState) -> dict[str, dict[str, object]]:
    """Per windowed view and stream: rows = accepted + duplicate + dead + late (semantics T2)."""
    late_rows = state.query(
        'SELECT view, source, count(DISTINCT (partition, "offset", window_start)) AS n FROM _ps.late '
        "WHERE status = 'late' AND epoch >= 0 GROUP BY view, source"
    )
    late_of = {(row["view"], row["source"]): row["n"] for row in late_rows.to_pylist()}
    found: dict[str, dict[str, object]] = {}
    for node, late in state.plan.late_blocks:
        view = state.plan.owner(node.name)
        counts = state.progress.sources[late.stream].counts
        behind = late_of.get((view, late.stream), 0)
        found.setdefault(view, {})[late.stream] = {
            "rows": counts.rows,
            "accepted": counts.accepted - behind,
            "duplicate": counts.duplicate,
            "dead": counts.dead,
            "late": behind,
        }
    return found


def _computed_again(state: DuckState) -> dict[str, int]:
    """In how many of the last epochs each view was computed again as a whole (decision 0021)."""
    groups = state.query(
        f"SELECT g, count(*) AS n FROM (SELECT unnest(from_json(entry->'again', '[\"VARCHAR\"]')) AS g "
        f"FROM _ps.journal WHERE epoch > {state.progress.epoch - LAST_EPOCHS}) GROUP BY g ORDER BY g"
    )
    found: dict[str, int] = {}
    for row in groups.to_pylist():
        view = state.plan.owner(row["g"])
        found[view] = max(found.get(view, 0), row["n"])
    return found


def asked(plan: Plan, query: Callable[[str], pa.Table], sql: str) -> pa.Table:
    """What the query gives.

    Raises:
        RunError: PS-RUN-003; where a table is unknown it says which there are.
    """
    try:
        return query(sql)
    except RunError as problem:
        unknown = _UNKNOWN.search(problem.got or "")
        if unknown is None:
            raise
        kept = [node.view or node.name for node in plan.nodes if node.content != "none" and _declared(plan, node)]
        passing = unknown[1].lower() in {v.name.lower() for v in plan.views}
        raise RunError(
            problem.code,
            f"{unknown[1]} keeps no rows: they pass through" if passing else f"there is no view {unknown[1]}",
            expected=", ".join(sorted(kept)) or "a view that keeps its rows",
            got=unknown[1],
            hint="read its sink, or what it reads" if passing else _CATALOGUE,
        ) from None


_UNKNOWN = re.compile(r"Table with name \"?([^\s\"]+)\"? does not exist")
_CATALOGUE = "penstock ls shows what the pipeline declares; _ps.dead, _ps.late and _ps.journal are there too"


def _declared(plan: Plan, node: Node) -> bool:
    return node.view is not None or plan.graph.source(node.name) is not None


def rows_of(table: pa.Table, *, limit: int | None = MAX_ROWS) -> Answer:
    """An Arrow table as column names and rows of plain values."""
    shown = table if limit is None else table.slice(0, limit)
    try:
        rows = [[plain(v) for v in row.values()] for row in shown.to_pylist()]
    except ValueError as problem:
        raise RunError(
            "PS-RUN-003",
            "the result has values without names",
            expected="structs with named fields, such as {'a': a, 'b': b}",
            got=str(problem),
        ) from None
    return {"columns": table.column_names, "rows": rows, "total": len(table)}


def plain(value: object) -> object:
    """A value as JSON has it: decimals as text, times in ISO 8601, bytes as text where they are, else base64."""
    match value:
        case datetime() | date():
            return value.isoformat()
        case Decimal():
            return str(value)
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return "base64:" + base64.b64encode(value).decode()
        case float() if value != value or value in (float("inf"), float("-inf")):
            return str(value)
        case dict():
            return {str(k): plain(v) for k, v in value.items()}
        case list() | tuple():
            return [plain(v) for v in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def letter(found: DeadLetter) -> Answer:
    """A dead letter as plain data."""
    return {
        "id": found.id,
        "source": found.source,
        "partition": found.partition,
        "offset": found.offset,
        "epoch": found.epoch,
        "append_time": instant(found.append_time_us),
        "rule": found.rule,
        "field": found.field,
        "got": found.got,
        "reason": found.reason,
        "status": found.status,
        "attempts": found.attempts,
        "key": plain(found.key),
        "value": plain(found.value),
    }


def instant(us: int | None) -> str | None:
    """Microseconds since 1970 as ISO 8601 in UTC."""
    return None if us is None else datetime.fromtimestamp(us / 1_000_000, UTC).isoformat().replace("+00:00", "Z")


def refusal(error: Error) -> Answer:
    """An error as an answer."""
    return {"error": error.to_dict()}


def _text(request: Mapping[str, object], name: str) -> str | None:
    value = request.get(name)
    return str(value) if value is not None else None


def _letters(state: DuckState, request: Mapping[str, object]) -> Answer:
    """A page of dead letters, and how many there are in all."""
    which = LetterQuery(source=_text(request, "source"), status=_text(request, "status"), rule=_text(request, "rule"))
    offset, limit = _count(request, "offset", 0), _count(request, "limit", MAX_ROWS)
    found = state.dead_letters(which, offset=offset, limit=min(limit, MAX_ROWS))
    return {"letters": [letter(x) for x in found], "total": state.count_dead_letters(which)}


def _count(request: Mapping[str, object], name: str, default: int) -> int:
    value = request.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or value < 0:
        raise DataError("PS-DATA-002", f"{name} is a number of rows", expected="0 or more", got=str(value))
    return value


def _one(state: DuckState, prefix: str) -> DeadLetter:
    found = state.dead_letters(LetterQuery(beginning=prefix), limit=2)
    if len(found) != 1:
        raise DataError(
            "PS-DATA-002",
            "no such dead letter" if not found else "more than one dead letter begins so",
            expected="an id that penstock dlq ls shows, or the beginning of one",
            got=prefix,
        )
    return found[0]


def _meant(state: DuckState, request: Mapping[str, object]) -> LetterQuery:
    """Letters that are named, else all that are dead, of a source and rule."""
    given = request.get("ids")
    if isinstance(given, list) and given:
        return LetterQuery(ids=tuple(_one(state, str(x)).id for x in given))
    return LetterQuery(source=_text(request, "source"), status="dead", rule=_text(request, "rule"))


def _replayable(state: DuckState, request: Mapping[str, object]) -> LetterQuery:
    """Letters that are named must be ones that can be judged again; of all, those that can be are taken."""
    wanted = _meant(state, request)
    if wanted.ids is None:
        return wanted
    for found in state.dead_letters(wanted):
        reason = _SETTLED.get(found.status) if not found.source.startswith("sink:") else "refused by a sink"
        if reason is not None:
            raise DataError(
                "PS-DATA-002",
                f"dead letter {found.id} cannot be replayed",
                expected="a letter of a source with status dead",
                got=f"{found.status}: {reason}",
            )
    return wanted


_SETTLED: Mapping[str, str] = {
    "replayed": "it counts already",
    "dropped": "it was dropped",
    "reread": "it was read again after a reset, and not refused",
    "kept": "its source is not read that far again yet",
}


def _late(state: DuckState, request: Mapping[str, object]) -> pa.Table:
    source = _stream(state, request)
    return state.late_rows(source)


def _stream(state: DuckState, request: Mapping[str, object]) -> str:
    streams = sorted({late.stream for late in state.plan.late_rules})
    source = _text(request, "source") or (streams[0] if len(streams) == 1 else "")
    if source not in streams:
        raise DataError(
            "PS-DATA-002",
            "rows of that source are never late" if source else "the source must be named",
            expected=", ".join(streams) or "a stream with a watermark that a windowed view reads",
            got=source or "none",
        )
    return source


def _late_positions(state: DuckState, request: Mapping[str, object]) -> list[tuple[str, int, int]]:
    source = _stream(state, request)
    rows = state.late_rows(source)
    wanted = _text(request, "view")
    found = {
        (source, int(r["partition"]), int(r["offset"]))
        for r in rows.select(["partition", "offset", "status", "view"]).to_pylist()
        if r["status"] == "late" and wanted in (None, r["view"])
    }
    return sorted(found)
