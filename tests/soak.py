"""What the tests of `make soak` share: the seed of the run, its counts, and the records that its page is made of.

`scripts/soak.py` sets the variables; without them a soak test runs at its full count with seed 0, and records nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

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
    """Note what a part came to; parts of one name are added up."""
    if _RECORDS is None:
        return
    entry: Mapping[str, object] = {"part": part, "seconds": seconds, **counts}
    Path(_RECORDS, f"{uuid4().hex}.json").write_text(json.dumps(entry), encoding="utf-8")
