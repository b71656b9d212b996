"""The two sets of views: where their SQL is, and a pipeline of some of them over the sources that these read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from penstock.graph import Graph
from penstock.load import load_pipeline

SUITES = ("tpch", "nexmark")


@cache
def suite(name: str) -> Graph:
    """All views of `tpch` or `nexmark`."""
    return load_pipeline(str(Path(__file__).parent / f"{name}.sql")).graph()


def only(graph: Graph, views: Sequence[str], sources: Sequence[str] | None = None) -> Graph:
    """The pipeline of these views alone. sources: those that they read, all where it is not given."""
    kept = graph.sources if sources is None else tuple(s for s in graph.sources if s.name in sources)
    return replace(graph, sources=kept, views=tuple(v for v in graph.views if v.name in views))
