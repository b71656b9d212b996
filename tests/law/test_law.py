"""The law per query: whatever the input and the split into epochs, a view is its batch query (design, section 2)."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.law.catalogue import CATALOGUE
from tests.law.law import Case, check
from tests.law.world import epochs

_EXAMPLES = int(os.environ.get("LAW_EXAMPLES", "6"))
# Shrinking a failure can take minutes; LAW_SHRINK=1 asks for it.
_PHASES = [p for p in Phase if p is not Phase.shrink or os.environ.get("LAW_SHRINK")]
_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.parametrize("case", CATALOGUE, ids=str)
def test_view_is_its_batch_query(case: Case) -> None:
    @settings(max_examples=_EXAMPLES, phases=_PHASES, suppress_health_check=_CHECKS)
    @given(epochs(case.sources) if case.sources else st.just([[], []]))
    def holds(history: list[list[object]]) -> None:
        check(case, history)  # type: ignore[arg-type]

    holds()
