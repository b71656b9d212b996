"""How many examples a property test tries: all in `make test`, a third of them in `make check` (profile `quick`)."""

from __future__ import annotations

from hypothesis import settings

QUICK = 33
_FULL = 100


def examples(full: int) -> int:
    """The count for `settings(max_examples=...)`, for tests whose count is not Hypothesis's own hundred."""
    quick = settings.default is not None and settings.default.max_examples == QUICK
    return max(2, full * QUICK // _FULL) if quick else full
