"""What a state answers when no job runs on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.runtime.test_reset import filled

from penstock.errors import RunError


def test_an_unknown_table_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    place = filled(tmp_path)
    with pytest.raises(RunError) as problem:
        place.ask("sql", query="SELECT * FROM per_knd")
    assert problem.value.message == "there is no view per_knd"
    assert problem.value.expected == "per_kind, per_minute"
    with pytest.raises(RunError, match="Candidate bindings"):
        place.ask("sql", query="SELECT nothing FROM per_kind")
