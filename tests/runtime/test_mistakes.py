"""Mistakes of declarations and of SQL are told together, and none of them twice."""

from __future__ import annotations

import pytest

from penstock.errors import DeclarationErrors
from penstock.pipeline import Pipeline
from penstock.runtime.mistakes import checked_graph

WRONG = """
CREATE STREAM clicks (id BIGINT NOT NULL, _op VARCHAR);
CREATE STREAM broken (id NOTYPE NOT NULL, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5 lightyears');
CREATE VIEW good AS SELECT id FROM clicks;
CREATE VIEW bad AS
    SELECT nothing
    FROM clicks;
CREATE VIEW over_broken AS SELECT id FROM broken;
CREATE VIEW volatile AS SELECT random() AS r FROM clicks;
CREATE SINK out FROM nowhere;
"""


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    with pytest.raises(DeclarationErrors) as told:
        checked_graph(Pipeline.from_sql(WRONG, name="wrong", file="wrong.sql"))
    lines = [(e.where.line if e.where else 0, e.code) for e in told.value.errors]
    assert (2, "PS-DECL-001") in lines
    assert 3 in [line for line, _ in lines]
    assert (6, "PS-DECL-007") in lines
    assert (9, "PS-DECL-008") in lines
    assert (10, "PS-DECL-003") in lines
    assert lines == sorted(lines, key=lambda entry: entry[0])
    assert not [line for line, _ in lines if line == 8], "a view over a wrong source is not blamed"


def test_a_right_pipeline_is_its_graph() -> None:
    pipeline = Pipeline.from_sql("CREATE STREAM a (b BIGINT); CREATE VIEW c AS SELECT b FROM a;", name="right")
    assert checked_graph(pipeline) == pipeline.graph()


def test_open_tells_them_too() -> None:
    with pytest.raises(DeclarationErrors) as told:
        Pipeline.from_sql(WRONG, name="wrong").open()
    assert {"PS-DECL-001", "PS-DECL-003", "PS-DECL-007", "PS-DECL-008"} <= {e.code for e in told.value.errors}
