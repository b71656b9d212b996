"""The law over a whole suite of published queries: after every epoch each view is its batch query, read and folded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.bench.views.changes import Change
from penstock.bench.views.recompute import Recompute
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.graph import Graph
from penstock.runtime.session import Session
from tests.law.law import Fold, rows_of
from tests.law.oracle import difference


def give_change(session: Session, change: Change, kind: str) -> None:
    """One source's part of an epoch; of a table first what goes."""
    if kind == "reference":
        session.replace(change.source, change.rows)
        return
    if change.deleted is not None:
        session.delete(change.source, change.deleted)
    if change.rows is not None:
        session.insert(change.source, change.rows)


class SuiteChecker:
    """A session over the views, and the batch beside it.

    definite: the batch takes from the plan what the query leaves unstated (V4).
    """

    def __init__(self, graph: Graph, definite: Sequence[str] = ()) -> None:
        self.graph = graph
        self.plan = compile_for_duckdb(graph, in_memory=True)
        self.session = Session(graph, DuckState(self.plan, None, collect=True, threads=1), None)
        queries = {}
        for view in graph.views:
            planned = self.plan.view(view.name)
            assert planned is not None
            queries[view.name] = planned.oracle if view.name in definite else view.sql
        self.batch = Recompute(graph.sources, queries, threads=1)
        self._kinds = {s.name: s.kind for s in graph.sources}
        self._folds = {view.name: Fold() for view in graph.views}
        self.changed: set[str] = set()

    def epoch(self, changes: Iterable[Change]) -> None:
        """Commit the changes and hold the law."""
        for change in changes:
            give_change(self.session, change, self._kinds[change.source])
            self.batch.apply(change)
        epoch = self.session.commit()
        dead = self.session.dead_letters()
        assert dead.num_rows == 0, dead.slice(0, 3).to_pylist()
        for view in self.graph.views:
            self._hold(view.name, epoch)

    def _hold(self, view: str, epoch: int) -> None:
        planned = self.plan.view(view)
        assert planned is not None
        self.batch.run(view)
        got = rows_of(self.session.read(view))
        wrong = difference(got, rows_of(self.batch.content(view)))
        assert not wrong, f"epoch {epoch}, read({view}): {wrong[:2000]}"
        changes = self.session.changes(view, epoch)
        if changes.num_rows and epoch:
            self.changed.add(view)
        self._folds[view].apply(changes, epoch, planned.key)
        wrong = difference(self._folds[view].content(), got)
        assert not wrong, f"epoch {epoch}, changes({view}): {wrong[:2000]}"

    def close(self) -> None:
        self.session.close()
        self.batch.close()
