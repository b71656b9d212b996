"""Connections to the one scratch database do not meet, and may be used from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from penstock.formats.scratch import scratch


def test_what_one_registers_another_does_not_see() -> None:
    first, second = scratch(), scratch()
    first.register("given", pa.table({"n": [1]}))
    second.register("given", pa.table({"n": [2]}))
    first.execute("PREPARE p AS SELECT n + 10 FROM given")
    second.execute("PREPARE p AS SELECT n + 20 FROM given")
    assert first.execute("EXECUTE p").fetchall() == [(11,)]
    second.close()
    assert first.execute("SELECT n, current_setting('TimeZone') FROM given").fetchall() == [(1, "UTC")]
    first.close()


def test_threads_work_beside_each_other() -> None:
    def work(number: int) -> int:
        connection = scratch()
        total = 0
        for step in range(20):
            connection.register("given", pa.table({"n": [number, step]}))
            total += connection.execute("SELECT sum(n)::BIGINT FROM given").fetchall()[0][0]
            connection.unregister("given")
        connection.close()
        return total

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == [20 * number + 190 for number in range(8)]
