"""Asking a state, whether a job runs on it or not."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from penstock.engines.duckdb.engine import DATABASE, DuckState, compile_for_duckdb
from penstock.errors import Error, StateError
from penstock.pipeline import Graph
from penstock.plan.plan import Plan
from penstock.runtime.answers import Answer, answer
from penstock.runtime.control import ask
from penstock.runtime.lock import StateLock

PATIENCE_S = 10.0


def ask_state(
    graph: Graph, folder: Path, request: Mapping[str, object], *, typed: str = "", plan: Plan | None = None
) -> Answer:
    """Through the control channel while a job holds the lock, over the file else.

    Args:
        typed: the pipeline as the user named it, for the hint.
        plan: the compiled graph, if the caller has it already.

    Raises:
        StateError: PS-STATE-007 when nothing has run here yet.
        Error: what the request is told.
    """
    if StateLock.holder(folder) is not None:
        return ask(folder, request)
    if not (folder / DATABASE).exists():
        raise no_state(folder, f"penstock run {typed or graph.name} makes it")
    lock = StateLock.take(folder)
    try:
        state = DuckState(plan or compile_for_duckdb(graph, in_memory=False), folder)
        try:
            return answer(state, request) | ({"running": False} if request.get("do") == "status" else {})
        finally:
            state.close()
    finally:
        lock.release()


def no_state(folder: Path, hint: str) -> StateError:
    """The error PS-STATE-007. hint: what makes a state."""
    return StateError(
        "PS-STATE-007",
        "there is no state here",
        expected=f"{folder / DATABASE}",
        got="nothing",
        hint=f"{hint}; --state names another folder",
    )


class Asker:
    """Asks one state from several threads, and again where a job is just starting or stopping."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._alone = threading.Lock()

    def __call__(self, request: Mapping[str, object]) -> Answer:
        """The answer.

        Raises:
            Error: what `ask_state` raises, after ten seconds where that could pass.
        """
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._ask(request)
            except Error as problem:
                if not problem.retryable or time.monotonic() >= until:
                    raise
            time.sleep(0.05)

    def _ask(self, request: Mapping[str, object]) -> Answer:
        # Reading a file holds its lock: another thread must not take that for a job.
        with self._alone:
            if StateLock.holder(self._folder) is None:
                return ask_state(self._plan.graph, self._folder, request, plan=self._plan)
        return ask(self._folder, request)
