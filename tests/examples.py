"""How many examples a property test tries: all in `make test`, a third of them in `make check` (profile `quick`), four
times as many in `make soak`."""

from __future__ import annotations

from hypothesis import settings

QUICK = 33
SOAK = 5_000
SOAK_TIMES = 4
_FULL = 100


def is_quick() -> bool:
    """Whether this is `make check`."""
    return settings.default is not None and settings.default.max_examples == QUICK


def examples(full: int) -> int:
    """The count for `settings(max_examples=...)`, for tests whose count is not Hypothesis's own hundred."""
    if is_quick():
        return max(2, full * QUICK // _FULL)
    return full * SOAK_TIMES if settings.default is not None and settings.default.max_examples == SOAK else full
