"""The epoch loop: read, commit, mark, deliver; again.

Invariants, in this order for every epoch: the engine's commit (state, offsets, journal, outbox in one transaction),
then the durable high-water mark, then delivery. A crash between any two leaves an epoch that is delivered again or not
at all, and sinks know epochs that come twice. A stop asked for from outside takes effect between epochs.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from penstock.connectors.base import Guarantee, Settling, Sink, SinkContext, Source, VersionSource
from penstock.connectors.registry import open_sink, open_source, open_versions, source_format
from penstock.connectors.watch import wait_for_any
from penstock.engines.base import EpochInput, EpochResult, Progress, SourceInput
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.errors import DeclarationError, StateError, Unsupported
from penstock.formats.compiled import loader
from penstock.observe.timing import part
from penstock.pipeline import Graph, SourceDecl
from penstock.plan.plan import Plan
from penstock.runtime.change import carry_out, outlook
from penstock.runtime.delivery import Delivery
from penstock.runtime.feed import Feed, ReferenceFeed, ReferenceUnreadable
from penstock.runtime.journal import read_journal
from penstock.runtime.lock import StateLock
from penstock.runtime.mark import HighWaterMark
from penstock.runtime.recorded import recorded_input, stamped
from penstock.runtime.watching import Control as Control
from penstock.runtime.watching import Observer as Observer
from penstock.runtime.watching import RunOptions as RunOptions
from penstock.runtime.watching import Snapshot as Snapshot
from penstock.runtime.watching import Until as Until
from penstock.settings import Target

MAINTAIN_EVERY_S = 30.0
MAINTAIN_UNDER_LOAD_EVERY_S = 300.0
# A pause between records is no time for a checkpoint: the next one comes in milliseconds.
QUIET_S = 1.0
WAIT_S = 0.05
RATE_OVER_S = 5.0
# How long the loop and the threads of sinks may keep each other waiting: an epoch takes milliseconds.
SWITCH_S = 0.000_5


class Runner:
    """One job: a pipeline on a target.

    Use it in a `with` block; `run` returns when the job is done or was stopped. `plan` is the compiled graph, if the
    caller has it already. `sources`, `versions` and `sinks` put objects (for example in-memory topics) in place of what
    the target binds.
    """

    def __init__(
        self,
        graph: Graph,
        target: Target,
        options: RunOptions | None = None,
        *,
        observers: tuple[Observer, ...] = (),
        control: Callable[[Runner], Control] | None = None,
        plan: Plan | None = None,
        sources: Mapping[str, Source] | None = None,
        versions: Mapping[str, VersionSource] | None = None,
        sinks: Mapping[str, Callable[[SinkContext], Sink]] | None = None,
    ) -> None:
        if target.engine != "duckdb":
            raise Unsupported(
                "PS-PLAN-001", f"engine {target.engine} cannot run pipelines yet", expected="duckdb", got=target.engine
            )
        self.graph = graph
        self.target = target
        self.options = options or RunOptions()
        self.observers = observers
        self.snapshot = Snapshot()
        self._stop = threading.Event()
        self._make_control = control
        self._control: Control | None = None
        self._given_sources = dict(sources or {})
        self._given_versions = dict(versions or {})
        self._given_sinks = dict(sinks or {})
        self.feeds: list[Feed] = []
        self.references: list[ReferenceFeed] = []
        self.deliveries: dict[str, Delivery] = {}
        self._rates: deque[tuple[float, int]] = deque()
        self._recent_rows = 0
        self._maintained_at = time.monotonic()
        self._closing: list[Callable[[], None]] = []
        self.plan: Plan = plan or compile_for_duckdb(graph, in_memory=False)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    # -- opening and closing -------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._lock = StateLock.take(self.target.state)
        self._closing.append(self._lock.release)
        self.mark = HighWaterMark(self.target.state)
        self._closing.append(self.mark.close)
        bound = [s.name for s in self.graph.sources if f"source:{s.name}" in self.target.bindings]
        formats = {name: source_format(self.target.source(name)) for name in bound}
        for name, format in formats.items():
            if format == "parquet":
                formats[name] = "json"
        self._change(formats)
        self.state = DuckState(
            self.plan,
            self.target.state,
            formats=formats,
            threads=self.options.threads,
            memory_limit=self.options.memory_limit,
        )
        self._closing.append(self.state.close)
        self.mark.check(self.progress.state_id, self.progress.epoch)
        if self.mark.epoch < self.progress.epoch:
            self.mark.write(self.progress.state_id, self.progress.epoch)
        self._open_sources()
        self._open_sinks()
        if self._make_control is not None:
            self._control = self._make_control(self)
            self._closing.append(self._control.close)

    def _change(self, formats: Mapping[str, str]) -> None:
        """Make the state one of a pipeline that has changed, as far as the options allow."""
        ahead = outlook(self.plan, self.target.state, self._source)
        if ahead is None:
            return
        # Before an epoch is added: a state that has lost commits must not come up to its mark by this one.
        self.mark.check(ahead.found.progress.state_id, ahead.found.progress.epoch)
        self._alert("the pipeline has changed: " + "; ".join(" ".join(line.split()) for line in ahead.lines()))
        ahead.check(accept=self.options.accept_changes)
        carry_out(self.plan, self.target.state, ahead, formats, self._source)

    def _source(self, declared: SourceDecl) -> Source:
        given = self._given_sources.get(declared.name)
        return given or open_source(self.target.source(declared.name), declared.name)

    def _open_sources(self) -> None:
        for declared in self.graph.sources:
            name = declared.name
            if declared.kind == "reference":
                versions = self._given_versions.get(name) or open_versions(self.target.source(name), name)
                self._closing.append(versions.close)
                seen = self.progress.sources[name].version
                self.references.append(ReferenceFeed(declared, versions, seen))
                continue
            source = self._source(declared)
            self._closing.append(source.close)
            if isinstance(source, Settling):
                source.settle_aside()
            feed = Feed(declared, source)
            feed.start(self.progress)
            self.feeds.append(feed)

    def _open_sinks(self) -> None:
        for declared in self.graph.sinks:
            view = self.plan.view(declared.view)
            relation = self.plan.node(view.node if view else declared.view).relation
            columns = self.state.query(
                f'SELECT * EXCLUDE (_op, _epoch, _seq, _correction) FROM _ps."o_{declared.name}" LIMIT 0'
            )
            context = SinkContext(self.graph.name, declared.name, self.progress.state_id, columns.schema, relation.key)
            make = self._given_sinks.get(declared.name)
            self._check_key(declared.name, relation.key)
            sink = make(context) if make else open_sink(self.target.sink(declared.name), context)
            delivery = Delivery(declared.name, sink, declared.on_error)
            self.deliveries[declared.name] = delivery
            self._closing.append(delivery.close)
            after = sink.delivered() if sink.guarantee != Guarantee.AT_LEAST_ONCE else -1
            for epoch, changes in self.state.outbox(declared.name, after):
                delivery.put(epoch, changes)
            delivery.flush()
            self.state.delivered(declared.name, self.progress.epoch)

    def _check_key(self, sink: str, key: tuple[str, ...]) -> None:
        if sink in self._given_sinks or key:
            return
        url = self.target.sink(sink)
        if url.options.get("format") in ("upsert", "debezium"):
            declared = self.graph.sink(sink)
            raise DeclarationError(
                "PS-DECL-011",
                f"sink {sink} writes {url.options['format']} records, and its view has no key",
                where=declared.where if declared else None,
                expected="a view with a key (GROUP BY, or view(..., key=...))",
                got=str(url),
            )

    def close(self) -> None:
        """Close sinks, sources and state, in the reverse order of opening."""
        errors: list[BaseException] = []
        while self._closing:
            try:
                self._closing.pop()()
            except BaseException as problem:  # noqa: BLE001 - everything is closed before the first one is raised
                errors.append(problem)
        if errors:
            raise errors[0]

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the loop ------------------------------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """Where the pipeline stands."""
        return self.state.progress

    def stop(self) -> None:
        """Finish the epoch that runs, flush the sinks, return from `run`. Safe in a signal handler."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def run(self) -> Progress:
        """Run until the options say, or until `stop`; where the pipeline stands then."""
        error: BaseException | None = None
        if self.options.until is Until.STOPPED:
            loader.prepare()
        for observer in self.observers:
            observer.started(self)
        with part("start"):
            gc.collect()
            gc.freeze()
        switch_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            if self.options.journal is not None:
                self._replay(self.options.journal)
            else:
                self._loop()
            with part("deliver"):
                self._deliver_rest()
        except BaseException as problem:
            error = problem
            raise
        finally:
            gc.unfreeze()
            sys.setswitchinterval(switch_s)
            for observer in self.observers:
                observer.stopped(self, error)
        return self.progress

    def _deliver_rest(self) -> None:
        for sink, delivery in self.deliveries.items():
            delivery.flush()
            self._keep_refused(delivery)
            self.state.delivered(sink, self.progress.epoch)
        # A sink that cannot tell repeats would otherwise get the last epochs again after a clean stop.
        self.state.forget_delivered()

    def _loop(self) -> None:
        self._wait_for_references()
        if self.stopping:
            return
        started = time.monotonic()
        upto = self._drain_marks() if self.options.until is Until.DRAINED else None
        quiet_since = time.monotonic()
        while not self.stopping:
            worked = self._one_epoch(upto)
            if self.options.for_s is not None and time.monotonic() - started >= self.options.for_s:
                break
            if worked:
                quiet_since = time.monotonic()
                self._maintain(MAINTAIN_UNDER_LOAD_EVERY_S)
                continue
            if self.options.until is Until.DRAINED:
                break
            if time.monotonic() - quiet_since >= QUIET_S:
                if self.options.until is Until.IDLE:
                    break
                self._maintain(MAINTAIN_EVERY_S)
            with part("wait"):
                self._wait()
        if not self.stopping and self.options.until is not Until.STOPPED and self.options.flush:
            self._flush()

    def _replay(self, journal: Path) -> None:
        """Run exactly the recorded epochs (semantics E1)."""
        for entry in read_journal(journal, self.plan):
            if self.stopping:
                return
            if entry.epoch <= self.progress.epoch:
                continue
            if entry.requests:
                self.state.restore_requests(entry.requests)
            self._commit(recorded_input(entry, self.progress, self.feeds, self.references))

    def _drain_marks(self) -> dict[str, dict[int, int]]:
        for feed in self.feeds:
            finish = getattr(feed.source, "finish", None)
            if finish is not None:
                finish()
        return {feed.declared.name: feed.latest() for feed in self.feeds}

    def _one_epoch(self, upto: Mapping[str, Mapping[int, int]] | None) -> bool:
        """Commit one epoch if there is a reason for one; whether there was."""
        worked = self._control.serve(self) if self._control is not None else False
        if self.state.replay_pending():
            self._commit(EpochInput(self.progress.epoch + 1, at_us=_now_us()))
            worked = True
        for delivery in self.deliveries.values():
            delivery.check()
        with part("read"):
            sources, idle, moved = self._read(upto)
        slept = any(idle[n] != self.progress.sources[n].idle for n in idle) and self._watermarks_matter()
        if not (moved or slept or self.progress.epoch < 0):
            return worked
        self._commit(
            EpochInput(self.progress.epoch + 1, sources, idle, replay_to=self.progress.replay_offset, at_us=_now_us())
        )
        with part("read"):
            for feed in self.feeds:
                feed.taken(sources[feed.declared.name])
        return True

    def _read(
        self, upto: Mapping[str, Mapping[int, int]] | None
    ) -> tuple[dict[str, SourceInput], dict[str, tuple[int, ...]], bool]:
        """What every source has for the next epoch, the idle partitions, and whether anything has come."""
        sources = self._poll_references()
        share = max(1, self.options.max_rows // max(1, len(self.feeds)))
        moved = bool(sources)
        for feed in self.feeds:
            given = feed.read(share, self.options.max_bytes, upto.get(feed.declared.name) if upto is not None else None)
            moved = moved or any(end > start for start, end in given.offsets.values())
            sources[feed.declared.name] = given
        return sources, {feed.declared.name: feed.idle() for feed in self.feeds}, moved

    def _watermarks_matter(self) -> bool:
        return any(feed.declared.watermark is not None for feed in self.feeds)

    def _commit(self, given: EpochInput) -> EpochResult:
        result = self.state.run(replace(stamped(given), settle=self._settle))
        with part("mark"):
            self.mark.write(self.progress.state_id, result.epoch)
        with part("deliver"):
            self._deliver(result)
        self._observe(result)
        return result

    def _settle(self) -> None:
        for feed in self.feeds:
            feed.settle()

    def _deliver(self, result: EpochResult) -> None:
        for sink, changes in result.changes.items():
            self.deliveries[sink].put(result.epoch, changes)
        for sink, delivery in self.deliveries.items():
            last = delivery.forgettable()
            self._keep_refused(delivery)
            if last is not None:
                self.state.delivered(sink, last)

    def _keep_refused(self, delivery: Delivery) -> None:
        """Rows that a sink refused become dead letters before the outbox forgets them."""
        for refused in delivery.take_refused():
            self.state.record_refused(delivery.name, refused.rows, refused.reason)
            self._alert(
                f"sink {delivery.name} refused {len(refused.rows)} rows of epoch {refused.epoch}: {refused.reason}"
            )

    def _flush(self) -> None:
        """End of the streams: `final` views emit their open windows as provisional."""
        if not self.plan.has_finals and self.progress.epoch >= 0:
            return
        self._commit(
            EpochInput(self.progress.epoch + 1, flush=True, replay_to=self.progress.replay_offset, at_us=_now_us())
        )

    # -- references ----------------------------------------------------------------------------------------------------

    def _poll_references(self, *, now: bool = False) -> dict[str, SourceInput]:
        found: dict[str, SourceInput] = {}
        for reference in self.references:
            try:
                given = reference.poll(now=now)
            except ReferenceUnreadable as problem:
                self._alert(str(problem))
                continue
            if given is not None:
                found[reference.declared.name] = given
        return found

    def _wait_for_references(self) -> None:
        """No epoch reads a stream before every reference has its first version (semantics R2)."""
        told = False
        while not self.stopping:
            missing = [r for r in self.references if self.progress.sources[r.declared.name].version is None]
            if not missing:
                return
            sources = self._poll_references(now=True)
            if sources:
                self._commit(EpochInput(self.progress.epoch + 1, sources, replay_to=0, at_us=_now_us()))
                continue
            names = ", ".join(r.declared.name for r in missing)
            if self.options.until is Until.DRAINED:
                raise StateError(
                    "PS-DATA-004",
                    f"reference {names} has no usable version",
                    expected="one complete version before any stream is read",
                    got="nothing at " + ", ".join(str(self.target.source(r.declared.name)) for r in missing),
                    hint="publish the reference first; penstock dlq ls shows the rows that were refused",
                )
            if not told:
                self._alert(f"waiting for the first version of {names}")
                told = True
            missing[0].source.wait(0.1)
            if self._control is not None:
                self._control.serve(self)

    # -- waiting, housekeeping, telling --------------------------------------------------------------------------------

    def _wait(self) -> None:
        if not self.feeds:
            time.sleep(WAIT_S)
        elif len(self.feeds) == 1:
            self.feeds[0].source.wait(WAIT_S)
        else:
            wait_for_any([feed.source for feed in self.feeds], WAIT_S)

    def _maintain(self, every_s: float) -> None:
        if time.monotonic() - self._maintained_at > every_s:
            with part("maintain"):
                self.state.maintain()
            self._maintained_at = time.monotonic()

    def _observe(self, result: EpochResult) -> None:
        now = time.monotonic()
        snapshot = self.snapshot
        snapshot.epoch = result.epoch
        snapshot.rows += result.rows_in
        snapshot.epoch_s = result.seconds
        self._rates.append((now, result.rows_in))
        self._recent_rows += result.rows_in
        while now - self._rates[0][0] >= RATE_OVER_S:
            self._recent_rows -= self._rates.popleft()[1]
        snapshot.rows_per_s = self._recent_rows / max(now - self._rates[0][0], 0.2)
        snapshot.lag = sum(feed.lag for feed in self.feeds)
        marks = [s.watermark_us for s in self.progress.sources.values() if s.watermark_us is not None]
        snapshot.watermark_us = min(marks, default=None)
        snapshot.dead = sum(s.counts.dead for s in self.progress.sources.values())
        snapshot.late = sum(self.progress.late.values())
        snapshot.waiting = sum(d.waiting for d in self.deliveries.values())
        for message in result.alerts:
            self._alert(message)
        for observer in self.observers:
            observer.epoch(self, result)

    def _alert(self, message: str) -> None:
        self.snapshot.alerts.append(message)
        del self.snapshot.alerts[:-100]
        for observer in self.observers:
            observer.alert(self, message)


def _now_us() -> int:
    return time.time_ns() // 1_000
