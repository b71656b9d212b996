"""Asking a state, whether a job runs on it or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock.engines.duckdb.engine import DATABASE, DuckState, compile_for_duckdb
from penstock.errors import StateError
from penstock.pipeline import Graph
from penstock.runtime.answers import Answer, answer
from penstock.runtime.control import ask
from penstock.runtime.lock import StateLock


def ask_state(graph: Graph, folder: Path, request: Mapping[str, object], *, typed: str = "") -> Answer:
    """Through the control channel while a job holds the lock, over the file else.

    Args:
        typed: the pipeline as the user named it, for the hint.

    Raises:
        StateError: PS-STATE-007 when nothing has run here yet.
        Error: what the request is told.
    """
    if StateLock.holder(folder) is not None:
        return ask(folder, request)
    if not (folder / DATABASE).exists():
        raise StateError(
            "PS-STATE-007",
            "there is no state here",
            expected=f"{folder / DATABASE}",
            got="nothing",
            hint=f"penstock run {typed or graph.name} makes it; --state names another folder",
        )
    lock = StateLock.take(folder)
    try:
        state = DuckState(compile_for_duckdb(graph, in_memory=False), folder)
        try:
            return answer(state, request) | ({"running": False} if request.get("do") == "status" else {})
        finally:
            state.close()
    finally:
        lock.release()
