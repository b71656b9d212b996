"""Delivery to sinks: retries, refusals, slow sinks that hold nobody else up (semantics E5)."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest

from penstock.connectors.base import Guarantee, RowsRefused
from penstock.errors import ConnectorError
from penstock.runtime import delivery as module
from penstock.runtime.delivery import KEPT_EPOCHS, QUEUED_EPOCHS, Delivery


def changes(epoch: int, values: list[int]) -> pa.Table:
    return pa.table(
        {"v": values, "_op": ["+I"] * len(values), "_epoch": [epoch] * len(values), "_seq": list(range(len(values)))}
    )


class Recorder:
    """Keeps what it is given; odd values are refused if `picky`, the first `failures` calls fail."""

    guarantee = Guarantee.IDEMPOTENT

    def __init__(self, *, picky: bool = False, failures: int = 0, retryable: bool = True) -> None:
        self.epochs: dict[int, list[int]] = {}
        self.gate = threading.Event()
        self.gate.set()
        self._picky, self._failures, self._retryable = picky, failures, retryable

    def delivered(self) -> int:
        return max(self.epochs, default=-1)

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        assert self.gate.wait(10)
        if self._failures:
            self._failures -= 1
            raise ConnectorError("PS-CONN-003", "not now", retryable=self._retryable)
        values = changes["v"].to_pylist()
        odd = tuple(n for n, v in enumerate(values) if v % 2)
        if self._picky and odd:
            raise RowsRefused("o", odd, "odd numbers")
        self.epochs[epoch] = values

    def close(self) -> None:
        return


@pytest.mark.parametrize("guarantee", list(Guarantee))
def test_the_outbox_may_drop_what_is_delivered_when_it_is_worth_it(guarantee: Guarantee) -> None:
    sink = Recorder()
    sink.guarantee = guarantee
    delivery = Delivery("o", sink)
    dropped = []
    for epoch in range(3 * KEPT_EPOCHS):
        delivery.put(epoch, changes(epoch, [epoch]))
        delivery.flush()
        if (upto := delivery.forgettable()) is not None:
            dropped.append(upto)
        assert delivery.forgettable() is None, "twice"
    delivery.close()
    every = 1 if guarantee is Guarantee.AT_LEAST_ONCE else KEPT_EPOCHS
    assert dropped == list(range(every - 1, 3 * KEPT_EPOCHS, every))


def test_many_rows_are_dropped_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_ROWS", 5)
    delivery = Delivery("o", Recorder())
    delivery.put(0, changes(0, [1, 2]))
    delivery.flush()
    assert delivery.forgettable() is None
    delivery.put(1, changes(1, [1, 2, 3]))
    delivery.flush()
    assert delivery.forgettable() == 1
    delivery.close()


def test_epochs_arrive_in_order_and_are_counted() -> None:
    sink = Recorder()
    delivery = Delivery("o", sink)
    for epoch in range(40):
        delivery.put(epoch, changes(epoch, [epoch]))
    delivery.flush()
    delivery.close()
    assert list(sink.epochs.items()) == [(n, [n]) for n in range(40)]
    assert (delivery.rows, delivery.last_epoch) == (40, 39)


def test_a_retryable_failure_is_tried_again() -> None:
    sink = Recorder(failures=2)
    delivery = Delivery("o", sink)
    delivery.put(0, changes(0, [1]))
    delivery.flush()
    delivery.close()
    assert sink.epochs == {0: [1]}


def test_a_fatal_failure_stops_the_pipeline() -> None:
    delivery = Delivery("o", Recorder(failures=1, retryable=False))
    delivery.put(0, changes(0, [1]))
    with pytest.raises(ConnectorError, match="not now"):
        delivery.flush()
    with pytest.raises(ConnectorError, match="not now"):
        delivery.put(1, changes(1, [1]))
    delivery.close()
    assert delivery.last_epoch == -1


def test_refused_rows_stop_by_default() -> None:
    delivery = Delivery("o", Recorder(picky=True))
    delivery.put(0, changes(0, [1, 2]))
    with pytest.raises(RowsRefused):
        delivery.flush()
    delivery.close()


def test_refused_rows_are_kept_and_the_others_arrive() -> None:
    sink = Recorder(picky=True)
    delivery = Delivery("o", sink, "dead")
    delivery.put(0, changes(0, [1, 2, 3, 4]))
    delivery.flush()
    (refused,) = delivery.take_refused()
    delivery.close()
    assert sink.epochs == {0: [2, 4]}
    assert (refused.epoch, refused.rows["v"].to_pylist(), refused.reason) == (0, [1, 3], "odd numbers")
    assert delivery.take_refused() == []


def test_a_slow_sink_fills_its_own_queue_only() -> None:
    slow, quick = Recorder(), Recorder()
    slow.gate.clear()
    behind, ahead = Delivery("slow", slow), Delivery("quick", quick)
    for epoch in range(QUEUED_EPOCHS):
        behind.put(epoch, changes(epoch, [epoch]))
        ahead.put(epoch, changes(epoch, [epoch]))
    ahead.flush()
    assert len(quick.epochs) == QUEUED_EPOCHS
    assert behind.waiting >= QUEUED_EPOCHS - 1
    assert slow.epochs == {}
    slow.gate.set()
    behind.flush()
    assert len(slow.epochs) == QUEUED_EPOCHS
    behind.close()
    ahead.close()
