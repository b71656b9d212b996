"""One epoch, from input to commit.

A large epoch is one transaction of DuckDB, whose COMMIT is the epoch's. So is a small one that changes tables. One that
changes none is committed by the sync of its record in the redo log (decision 0024).

Order: references, tables, streams; then every block after its inputs, transient ones last. As soon as a relation's
delta is known its content moves, and every join that reads it computes its terms (plan/flat.py says why this
telescopes).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from penstock.engines.base import EpochInput, EpochResult, Progress, SourceInput
from penstock.engines.duckdb import late_rows, letters, replay
from penstock.engines.duckdb.behind import Behind
from penstock.engines.duckdb.blocks import add_terms, run_block, run_named_block, start_joins
from penstock.engines.duckdb.ingest import GUARDED_EPOCHS, MalformedRecords
from penstock.engines.duckdb.outbox import Changes
from penstock.engines.duckdb.redo import Moved, entry_row
from penstock.engines.duckdb.scope import Delta, EpochScope
from penstock.engines.duckdb.sources import Outcome, run_source, take_idle, version_of
from penstock.engines.duckdb.state import journal_entry, table
from penstock.engines.duckdb.statements import Statements
from penstock.formats.decode import Decoder
from penstock.observe.timing import part
from penstock.plan.blocks import FlatBlock, Node, SourceBlock, content_name
from penstock.plan.plan import Plan
from penstock.plan.switching import Unit
from penstock.storage import failpoints

BEFORE_COMMIT = failpoints.register("epoch.before_commit", "everything is written, nothing is committed")
AFTER_COMMIT = failpoints.register("epoch.after_commit", "the epoch is committed, nobody was told")


@dataclass(frozen=True)
class Wanted:
    """Whose changes are fetched: sinks (through the outbox) and views (for a session).

    columns: of each source, those that are needed of its records; reads: those that are needed of its delta (None: all
    of them). threads: of the database.
    """

    sinks: Mapping[str, str]
    views: Mapping[str, str]
    columns: Mapping[str, frozenset[str] | None]
    reads: Mapping[str, frozenset[str] | None]
    threads: int


def run_epoch(
    statements: Statements,
    plan: Plan,
    decoders: Mapping[str, Decoder],
    progress: Progress,
    given: EpochInput,
    wanted: Wanted,
    delivered: Mapping[str, int],
    guarded: dict[str, int],
    again: Mapping[str, Unit],
    behind: Behind | None,
    moved_at: dict[str, int],
) -> tuple[Progress, EpochResult, dict[str, pa.Table]]:
    """Execute and commit; the new progress, the result, and the changes of `wanted.views`.

    A malformed record aborts DuckDB's transaction, so the epoch is rolled back and run again with that source guarded;
    it stays so for a while. guarded: epochs left by source, kept up here. again: the groups to compute again.
    moved_at: the last epoch in which a relation moved, kept up here.
    """
    while True:
        try:
            done = _attempt(
                statements,
                plan,
                decoders,
                progress,
                given,
                wanted,
                delivered,
                frozenset(guarded),
                again,
                behind,
                moved_at,
            )
            break
        except MalformedRecords as met:
            guarded[met.source] = GUARDED_EPOCHS
    for name in list(guarded):
        guarded[name] -= 1
        if not guarded[name]:
            del guarded[name]
    return done


def _attempt(
    statements: Statements,
    plan: Plan,
    decoders: Mapping[str, Decoder],
    progress: Progress,
    given: EpochInput,
    wanted: Wanted,
    delivered: Mapping[str, int],
    guarded: frozenset[str],
    again: Mapping[str, Unit],
    behind: Behind | None,
    moved_at: dict[str, int],
) -> tuple[Progress, EpochResult, dict[str, pa.Table]]:
    started = time.perf_counter()
    before = progress.epoch
    moved = progress.copy()
    moved.epoch = given.epoch
    moved.flushed = given.flush
    statements.begin()
    try:
        run = _Run(statements, plan, decoders, moved, given, guarded, wanted, again, behind, moved_at)
        with part("check"):
            run.sources()
        with part("merge"):
            run.blocks()
        with part("outbox"):
            changes, views = run.changes(wanted, delivered)
        with part("commit"):
            run.journal()
            given.settle()
            failpoints.hit(BEFORE_COMMIT)
            commit_started = time.perf_counter()
            if statements.changing or behind is None:
                statements.commit()
            else:
                behind.commit(given.epoch, before)
    except BaseException:
        statements.roll_back()
        if behind is not None:
            behind.rolled_back()
        raise
    if behind is not None:
        behind.committed(given.epoch)
    failpoints.hit(AFTER_COMMIT)
    # What is computed again moves what is its own without a delta.
    moved_at.update(dict.fromkeys([n.name for n in plan.nodes] if again else run.scope.deltas, given.epoch))
    for name in run.scope.given:
        statements.take(name)
    ended = time.perf_counter()
    result = EpochResult(
        given.epoch,
        run.rows_in,
        changes,
        run.late,
        tuple(run.alerts),
        run.touched,
        ended - started,
        ended - commit_started,
        tuple(sorted({unit.view for unit in run.scope.again.values()})),
        run.scope.spent,
    )
    return moved, result, views


class _Run:
    """The working state of one epoch."""

    def __init__(
        self,
        statements: Statements,
        plan: Plan,
        decoders: Mapping[str, Decoder],
        progress: Progress,
        given: EpochInput,
        guarded: frozenset[str],
        wanted: Wanted,
        again: Mapping[str, Unit],
        behind: Behind | None,
        moved_at: Mapping[str, int],
    ) -> None:
        self.statements = statements
        self.plan, self.decoders, self.progress, self.given = plan, decoders, progress, given
        before = {name: s.watermark_us for name, s in progress.sources.items()}
        self.replay = replay.read_replay(statements.reader, progress.replay_offset, given.replay_to)
        self.correction = not self.replay.empty
        contents = {n.name: content_name(n.relation) for n in plan.nodes}
        self.scope = EpochScope(
            statements,
            plan,
            given.epoch,
            given.epoch == 0,
            given.flush,
            before,
            before,
            frozenset(),
            wanted.threads,
            contents=contents,
            guarded=guarded,
            correction=self.correction,
            columns=wanted.columns,
            reads=wanted.reads,
            # What comes back to a block comes by itself, so in a correction all move by their changes.
            again={} if self.correction else again,
            versions={name: version_of(s) for name, s in progress.sources.items()},
            behind=behind,
            moved_at=moved_at,
        )
        self.rows_in = 0
        self.late: dict[str, int] = {}
        self.alerts: list[str] = []
        self.touched: dict[str, float] = {}
        self.ranges: dict[str, dict[int, tuple[int, int]]] = {}

    def sources(self) -> None:
        """Every source's delta, content and watermark; then the dead letters of all."""
        failed: set[tuple[str, int, int]] = set()
        for node in self.plan.nodes:
            block = node.block
            if not isinstance(block, SourceBlock):
                continue
            name = block.source.name
            source_input = self._input(name)
            progress = self.progress.sources[name]
            self.ranges[name] = dict(source_input.offsets)
            take_idle(block.source, tuple(self.given.idle.get(name, progress.idle)), progress)
            started = time.perf_counter()
            outcome = run_source(
                self.scope, node, block, self.decoders[name], source_input, progress, correction=self.correction
            )
            rows = sum(b.rows for b in source_input.batches)
            if rows:
                self.touched[name] = time.perf_counter() - started
            if not self.correction:
                self.rows_in += rows
            self._keep_letters(name, outcome, failed)
            # Before the next source moves: the terms of a join see earlier relations new and later ones old.
            if name in self.scope.deltas:
                start_joins(self.scope, name)
            if self.correction and rows:
                self.replay.move_counts(name, progress.counts, rows - len(outcome.letters))
        if self.correction:
            replay.mark_replayed(self.statements.connection, self.replay, failed)
            self.progress.replay_offset = self.replay.upto
        elif self.given.replay_to is None or self.given.replay_to > self.progress.replay_offset:
            self.progress.replay_offset = max(self.replay.upto, self.progress.replay_offset)
        self.scope.after = {name: s.watermark_us for name, s in self.progress.sources.items()}

    def _input(self, name: str) -> SourceInput:
        if self.correction:
            return SourceInput(tuple(self.replay.dead.get(name, ())))
        return self.given.sources.get(name, SourceInput())

    def _keep_letters(self, name: str, outcome: Outcome, failed: set[tuple[str, int, int]]) -> None:
        self.alerts += outcome.alerts
        if outcome.letters:
            letters.record_dead(self.statements.connection, name, outcome.letters, self.given.epoch)
            failed |= {(name, x.partition, x.offset) for x in outcome.letters}

    def blocks(self) -> None:
        """Every block after its inputs."""
        presets: dict[str, Delta] = {}
        if self.replay.late:
            presets = late_rows.apply_late(self.scope, self.replay)
            self.progress.late = late_rows.late_counts(self.statements.connection)
        for node in self.plan.nodes:
            if isinstance(node.block, SourceBlock):
                continue
            started = time.perf_counter()
            if node.name in presets and presets[node.name].rows:
                self._come_back(node, presets[node.name])
            if node.name not in self.scope.deltas and node.name not in self.scope.idle:
                self._run(node)
                self.scope.spend(node.name, started)
            if node.name in self.scope.deltas:
                self.touched[node.name] = time.perf_counter() - started
                start_joins(self.scope, node.name)
        self.late = late_rows.record_late(self.scope)
        for view, count in self.late.items():
            self.progress.late[view] = self.progress.late.get(view, 0) + count

    def _run(self, node: Node) -> None:
        run_named_block(
            self.scope,
            node,
            problem=f"failed on a row of epoch {self.given.epoch}, which was rolled back",
            hint="guard it in the view (TRY_CAST, nullif, CASE), or refuse such rows in the contract",
        )

    def _come_back(self, node: Node, rows: Delta) -> None:
        """Late rows enter the one block that they were late for."""
        block = node.block
        if not isinstance(block, FlatBlock) or block.late is None:
            self.scope.forced.add(node.name)
            return
        self.scope.deltas[block.late.relation] = rows
        if len(block.from_) > 1:
            add_terms(self.scope, block, block.late.relation)
        run_block(self.scope, node)
        del self.scope.deltas[block.late.relation]

    def changes(self, wanted: Wanted, delivered: Mapping[str, int]) -> tuple[dict[str, pa.Table], dict[str, pa.Table]]:
        """Change records: into the outbox for sinks, and fetched for both."""
        for sink, epoch in delivered.items() if self.scope.behind is None else ():
            self.statements.connection.execute(f"DELETE FROM {table('o_' + sink)} WHERE _epoch <= {epoch}")
        changes = Changes(self.scope)
        sinks = {sink: rows for sink, node in wanted.sinks.items() if (rows := changes.send(sink, node)) is not None}
        views = {view: rows for view, node in wanted.views.items() if (rows := changes.read(node)) is not None}
        return sinks, views

    def journal(self) -> None:
        """The row that makes the epoch replayable and says where everything stands."""
        extra = {
            "flush": self.given.flush,
            "correction": self.correction,
            "requests": self.replay.requests(),
            "at_us": self.given.at_us,
            "again": sorted(self.scope.again),
            "plan": self.plan.fingerprint,
            "advance": {n: s.advance_us for n, s in self.given.sources.items() if s.advance_us is not None},
        }
        entry = journal_entry(self.progress, self.ranges, extra)
        row = entry_row(self.given.epoch, entry.encode(), pa.string())
        if self.scope.behind is not None:
            self.scope.behind.stage(Moved("journal", row))
            if self.statements.changing:
                self.scope.behind.write(self.given.epoch)
            return
        self.statements.give("_ps_entry", row)
        self.statements.write(f"INSERT INTO {table('journal')} SELECT * FROM _ps_entry")
        self.statements.take("_ps_entry")
