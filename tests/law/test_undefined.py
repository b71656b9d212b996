"""Outputs that fail for a group that is not there, as `ln(count(*))` does, at every size of epochs."""

from __future__ import annotations

import pytest

from tests.law.law import SMALL_EPOCHS, Case, View, check, compiled
from tests.law.world import dense

CASE = Case(
    "undefined",
    (
        View("logarithm", "SELECT k, ln(count(*)) AS l FROM m GROUP BY k"),
        View("having", "SELECT k, ln(sum(x)) AS l FROM m GROUP BY k HAVING sum(x) > 0"),
        View("failing_having", "SELECT k, count(*) AS n FROM m GROUP BY k HAVING ln(count(*)) > 0.5"),
        View("keyless", "SELECT ln(count(*) + 1) AS l FROM m HAVING count(*) > 2"),
        View("parts", "SELECT 10 // count(x) AS q, k FROM m GROUP BY k HAVING count(x) > 0"),
    ),
)


@pytest.mark.parametrize("small_epoch", SMALL_EPOCHS)
def test_an_output_is_evaluated_for_groups_that_show_it_alone(small_epoch: int) -> None:
    assert "merge" in {n.strategy for n in compiled(CASE)[1].nodes}
    for seed in (1, 2, 3):
        check(CASE, dense(CASE.sources, seed), small_epoch)
