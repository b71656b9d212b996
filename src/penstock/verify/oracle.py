"""The oracle: the user's SQL as one batch over the records as they stand in the sources (semantics P1).

`python -m penstock.verify.oracle SPEC.json`, a process of its own. It imports nothing of the planner, the engines and
the runtime (a test holds it to that): it reads every record again, judges each one in Python, applies the rules of
tables, duplicates and lateness in Python, and runs each view's original text in a plain DuckDB.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa

from penstock.connectors.registry import open_source, open_versions, source_format
from penstock.contract.schema import RowCheck
from penstock.decimals import DECIMAL_DIV
from penstock.errors import RunError, StateError
from penstock.formats.decode import RecordDecoder
from penstock.formats.judge_sql import Judgement
from penstock.functions import register
from penstock.graph import Graph, SourceDecl
from penstock.load import load_pipeline
from penstock.url import Url
from penstock.verify.accept import Accepted, accept, counts
from penstock.verify.history import late_name, quote
from penstock.verify.records import Examined, Journaled, examine_batches, examine_source
from penstock.verify.spec import LateSpec, OracleSpec, SourceSpec, ViewSpec, obey
from penstock.verify.timeline import replay

_KINDS = ("reference", "table", "stream")
ANSWER = "answer"


def run_oracle(spec: OracleSpec) -> None:
    """Work everything out and write it to `spec.answer`."""
    graph = load_pipeline(spec.pipeline).graph(spec.values)
    journal = read_journal(Path(spec.journal))
    connection = duckdb.connect()
    connection.execute(f"SET TimeZone = 'UTC'; SET threads = 1; {DECIMAL_DIV}")
    register(connection, graph.functions)
    connection.execute(f"ATTACH '{spec.answer}' AS {ANSWER}")
    _make_ledgers(connection)
    told = {s.name: s for s in spec.sources}
    accepted: dict[str, Accepted] = {}
    history = any(v.kind != "batch" and not v.skipped for v in spec.views)
    for source in sorted(graph.sources, key=lambda s: _KINDS.index(s.kind)):
        accepted[source.name] = _read(connection, source, told[source.name], journal, history=history)
    _answer(connection, graph, [v for v in spec.views if not v.skipped], accepted, journal)
    connection.close()


def _answer(
    connection: duckdb.DuckDBPyConnection,
    graph: Graph,
    views: Sequence[ViewSpec],
    accepted: Mapping[str, Accepted],
    journal: Sequence[Journaled],
) -> None:
    """Every view into the answer: first those that the epochs decide, then the others, which may read them."""
    for view in views:
        for late in view.late:
            _find_late(connection, view, late, accepted)
        for stream in view.marked:
            _mark(connection, stream, accepted[stream])
    replay(connection, graph, views, accepted, journal)
    for view in views:
        if view.kind == "batch":
            _view(connection, graph, view, views)
        connection.execute(
            f"CREATE TABLE {ANSWER}.views.{quote(view.name)} AS SELECT * FROM memory.main.{quote(view.name)}"
        )


def read_journal(path: Path) -> list[Journaled]:
    """The epochs of the journal, as what they read."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        raw = json.loads(line)
        ranges = {
            name: {int(p): (int(r[0]), int(r[1])) for p, r in s["ranges"].items()} for name, s in raw["sources"].items()
        }
        versions = {name: s["version"] for name, s in raw["sources"].items() if s["version"] is not None}
        idle = {name: frozenset(map(int, s["idle"])) for name, s in raw["sources"].items()}
        found.append(Journaled(int(raw["epoch"]), int(raw["at_us"]), ranges, versions, bool(raw["flush"]), idle))
    return found


# -- sources -----------------------------------------------------------------------------------------------------------


def _read(
    connection: duckdb.DuckDBPyConnection,
    source: SourceDecl,
    told: SourceSpec,
    journal: Sequence[Journaled],
    *,
    history: bool,
) -> Accepted:
    url = Url.parse(told.url)
    checks = tuple(RowCheck(name, sql) for name, sql in told.checks)
    schema = replace(source.schema, checks=checks)
    format = source_format(url)
    judgement = Judgement(schema, source.kind, source.key, told.event_time, source.max_ahead)
    decoder = RecordDecoder(judgement, "json" if format == "parquet" else format)
    if source.kind == "reference":
        examined = _read_version(source, url, decoder, journal)
    else:
        reader = open_source(url, source.name)
        try:
            _finish(reader)
            examined = examine_source(source.name, reader, schema, decoder, journal)
        finally:
            reader.close()
    result = accept(
        connection,
        source,
        examined,
        event_time=told.event_time,
        checks=told.checks,
        journal=journal,
        history=history,
    )
    versions = {entry.versions[source.name] for entry in journal if source.name in entry.versions}
    _write_ledgers(connection, source.name, examined, result, len(versions))
    return result


def _finish(reader: object) -> None:
    finish = getattr(reader, "finish", None)
    if finish is not None:
        finish()


def _read_version(source: SourceDecl, url: Url, decoder: RecordDecoder, journal: Sequence[Journaled]) -> Examined:
    wanted = next((e.versions[source.name] for e in reversed(journal) if source.name in e.versions), None)
    versions = open_versions(url, source.name)
    try:
        version = versions.poll(None)
    finally:
        versions.close()
    if version is None or version.id != wanted:
        raise StateError(
            "PS-STATE-008",
            f"reference {source.name} has changed since the job read it",
            expected=f"version {wanted}",
            got=str(version.id if version else None),
            hint="verify again while the reference stays as it is",
        )
    return examine_batches(version.batches, source.schema, decoder, journal[0].at_us)


def _make_ledgers(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(f"CREATE SCHEMA {ANSWER}.views")
    connection.execute(f"CREATE TABLE {ANSWER}.dead (source VARCHAR, p INTEGER, o BIGINT, rule VARCHAR)")
    connection.execute(f"CREATE TABLE {ANSWER}.late (view VARCHAR, source VARCHAR, p INTEGER, o BIGINT)")
    connection.execute(f"CREATE TABLE {ANSWER}.counts (source VARCHAR, what VARCHAR, n BIGINT)")


def _write_ledgers(
    connection: duckdb.DuckDBPyConnection, source: str, examined: Examined, accepted: Accepted, versions: int
) -> None:
    """What became of the records. versions: of a reference; of several the last one alone can be read and counted."""
    dead = [(source, p, o, rule) for (p, o), rule in accepted.dead.items()]
    _insert(connection, "dead", dead, ("source", "p", "o", "rule"))
    told = {"versions": versions} if versions > 1 else counts(examined, accepted)
    rows = [(source, what, n) for what, n in told.items()]
    _insert(connection, "counts", rows, ("source", "what", "n"))


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Iterable[tuple[object, ...]], names: tuple[str, ...]
) -> None:
    columns = list(zip(*rows, strict=True))
    if columns:
        connection.register("_rows", pa.table({n: list(c) for n, c in zip(names, columns, strict=True)}))
        connection.execute(f"INSERT INTO {ANSWER}.{table} SELECT * FROM _rows")
        connection.unregister("_rows")


# -- views -------------------------------------------------------------------------------------------------------------


def _view(connection: duckdb.DuckDBPyConnection, graph: Graph, view: ViewSpec, views: Sequence[ViewSpec]) -> None:
    """The view's text as one batch; where rows are late for it, over copies of its inputs without them."""
    schema = "main"
    if view.late and not view.marked:
        schema = quote(f"_late_{view.name}")
        connection.execute(f"CREATE SCHEMA {schema}")
        for stream in {rule.stream for rule in view.late}:
            source = next(s for s in graph.sources if s.name == stream)
            columns = ", ".join(quote(c) for c in source.schema.names)
            connection.execute(
                f"CREATE TABLE {schema}.{quote(stream)} AS SELECT {columns} FROM {quote('_s_' + stream)} AS s "
                f"ANTI JOIN {late_name(view.name, stream)} AS x ON s._ps_p = x.p AND s._ps_o = x.o"
            )
        for name in view.scoped:
            _batch(connection, schema, name, next(v.sql for v in views if v.name == name), schema)
    _batch(connection, "main", view.name, view.sql, schema)


def _batch(connection: duckdb.DuckDBPyConnection, into: str, name: str, sql: str, read: str) -> None:
    connection.execute(f"SET search_path = '{read if read == 'main' else read + ',main'}'")
    try:
        connection.execute(f"CREATE TABLE memory.{into}.{quote(name)} AS {sql}")
    except duckdb.Error as problem:
        raise RunError(
            "PS-RUN-003",
            f"view {name} fails as one batch",
            expected="a query that holds for every row",
            got=str(problem).split("\n")[0],
        ) from problem
    finally:
        connection.execute("SET search_path = 'main'")


def _find_late(
    connection: duckdb.DuckDBPyConnection, view: ViewSpec, late: LateSpec, accepted: Mapping[str, Accepted]
) -> None:
    """The rows of the stream whose window had closed before they came (T1)."""
    ends = connection.execute(
        f"SELECT _ps_p, _ps_o, {late.end_of_event} FROM (SELECT *, _ps_at AS _ps_event FROM "
        f"{quote('_s_' + late.stream)})"
    )
    watermarks = accepted[late.stream].watermarks
    found = []
    for partition, offset, end in ends.fetchall():
        watermark = watermarks.get((partition, offset))
        if watermark is not None and end is not None and end <= watermark:
            found.append((partition, offset))
    name = late_name(view.name, late.stream)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {name} (p INTEGER, o BIGINT)")
    connection.register(
        "_late_places",
        pa.table({"p": pa.array([p for p, _ in found], pa.int32()), "o": pa.array([o for _, o in found], pa.int64())}),
    )
    connection.execute(f"INSERT INTO {name} SELECT * FROM _late_places EXCEPT SELECT * FROM {name}")
    connection.unregister("_late_places")
    if late.counted:
        rows = [(view.name, late.stream, p, o) for p, o in found]
        _insert(connection, "late", rows, ("view", "source", "p", "o"))


def _mark(connection: duckdb.DuckDBPyConnection, stream: str, accepted: Accepted) -> None:
    """The stream with the watermark that each row met, for a view that reads rows on time and late ones."""
    connection.execute("CREATE SCHEMA IF NOT EXISTS _ps")
    places = list(accepted.watermarks)
    marks = {
        "p": pa.array([p for p, _ in places], pa.int32()),
        "o": pa.array([o for _, o in places], pa.int64()),
        "wm": pa.array([accepted.watermarks[place] for place in places], pa.timestamp("us")),
    }
    connection.register("_marks", pa.table(marks))
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS _ps.{quote('h_' + stream)} AS SELECT s.*, m.wm AS _ps_wm "
        f"FROM {quote('_s_' + stream)} AS s LEFT JOIN _marks AS m ON s._ps_p = m.p AND s._ps_o = m.o"
    )
    connection.unregister("_marks")


if __name__ == "__main__":
    sys.exit(obey(sys.argv[1:], lambda path: run_oracle(OracleSpec.read(path))))
