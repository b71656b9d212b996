"""Standard output: JSON lines in a pipe, a table for people."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pytest

from penstock.connectors.base import Guarantee
from penstock.connectors.stdout import StdoutSink
from penstock.errors import ConnectorError
from tests.connectors.conformance import changes, context


def test_changes_are_json_lines() -> None:
    stream = io.BytesIO()
    sink = StdoutSink(context(), "changelog", stream)
    sink.deliver(3, changes(3, [("+I", 1, 2), ("-D", 1, 2)]))
    sink.deliver(4, changes(4, []))
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(row["_op"], row["_epoch"], row["id"], row["n"]) for row in rows] == [("+I", 3, 1, 2), ("-D", 3, 1, 2)]
    assert sink.delivered() == -1
    assert sink.guarantee is Guarantee.AT_LEAST_ONCE


def test_the_table_is_aligned_and_its_cells_stay_short() -> None:
    stream = io.BytesIO()
    sink = StdoutSink(context(), "table", stream)
    table = changes(7, [("+I", 1, 2), ("+I", 1000, 3)]).append_column("text", pa.array(["x" * 99, None]))
    sink.deliver(7, table)
    lines = stream.getvalue().decode().splitlines()
    assert lines[0] == "out, epoch 7"
    assert lines[1].split() == ["_op", "id", "n", "text"]
    assert lines[3].split()[:3] == ["+I", "1", "2"]
    assert lines[3].endswith("…")
    assert max(map(len, lines)) < 70
    assert lines[1].index("n") == lines[4].index("3")


class ClosedPipe(io.BytesIO):
    def write(self, data: object) -> int:
        raise BrokenPipeError("closed")


def test_a_closed_pipe_is_a_clear_error() -> None:
    with pytest.raises(ConnectorError) as caught:
        StdoutSink(context(), "changelog", ClosedPipe()).deliver(0, changes(0, [("+I", 1, 1)]))
    assert caught.value.code == "PS-CONN-003"
