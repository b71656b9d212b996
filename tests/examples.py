"""How many examples a property test tries: all in `make test`, a third of them in `make check` (profile `quick`)."""

from __future__ import annotations

from hypothesis import settings

QUICK = 33
_FULL = 100


def is_quick() -> bool:
    """Whether this is `make check`."""
    return settings.default is not None and settings.default.max_examples == QUICK


def examples(full: int) -> int:
    """The count for `settings(max_examples=...)`, for tests whose count is not Hypothesis's own hundred."""
    return max(2, full * QUICK // _FULL) if is_quick() else full
