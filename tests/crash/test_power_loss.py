"""A kill, a start, and only then the power loss: what the start has reported as delivered must outlive it."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.connectors.base import Url
from penstock.connectors.registry import open_sink
from penstock.storage import unsynced
from tests.connectors.conformance import context
from tests.connectors.test_file_sink import killed_writer

KINDS = ("out.jsonl", "out/?roll=0s", "out.jsonl?mode=snapshot")


@pytest.mark.parametrize("hit", [2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_start_saw_as_delivered_outlives_a_power_loss(
    tmp_path: Path, kind: str, hit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = Url.parse(f"file:{tmp_path}/{kind}")
    killed_writer(str(url), f"file.renamed@{hit}", tmp_path / "records")
    monkeypatch.setenv(unsynced.VARIABLE, str(tmp_path / "records"))
    seen = open_sink(url, context()).delivered()
    unsynced.drop_unsynced(tmp_path / "records")
    again = open_sink(url, context())
    assert again.delivered() >= seen
    again.close()
