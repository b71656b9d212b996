"""Fixtures of the connectors' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from penstock.storage import failpoints


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Arms fail points in this process (an empty text disarms all); disarmed at the end."""

    def set_plan(text: str) -> None:
        monkeypatch.setenv(failpoints.ARM_VARIABLE, text)
        failpoints.reload()

    yield set_plan
    monkeypatch.undo()
    failpoints.reload()
