"""What the tests of `make soak` share: the seed of the run, its counts, and the records that its page is made of.

`scripts/soak.py` sets the variables; without them a soak test runs at its full count with seed 0, and records nothing.
A test that has passed leaves a mark beside its record, and is not run again by a soak that goes on there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

SEED = int(os.environ.get("SOAK_SEED", "0"))
_SHARE = float(os.environ.get("SOAK_SHARE", "1"))
_RECORDS = os.environ.get("SOAK_RECORDS")


def count(full: int) -> int:
    """The full count, or the share of it that was asked for."""
    return max(1, round(full * _SHARE))


def is_whole() -> bool:
    """Whether the counts are the full ones."""
    return _SHARE >= 1


def record(part: str, seconds: float, **counts: object) -> None:
    """Note what the test that runs came to; parts of one name are added up."""
    if _RECORDS is None:
        return
    entry: Mapping[str, object] = {"part": part, "seconds": seconds, **counts}
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" (")[0]
    Path(_RECORDS, f"{_name(test)}.json").write_text(json.dumps(entry), encoding="utf-8")


def has_passed(item: pytest.Item) -> bool:
    """Whether the test has passed in this soak, in an earlier sitting."""
    return _RECORDS is not None and _mark(_RECORDS, item).exists()


def mark_passed(item: pytest.Item) -> None:
    """Remember that the test has passed."""
    if _RECORDS is not None:
        _mark(_RECORDS, item).touch()


def _mark(folder: str, item: pytest.Item) -> Path:
    return Path(folder, f"{_name(item.nodeid)}.passed")


def _name(test: str) -> str:
    return sha256(test.encode()).hexdigest()[:16]
