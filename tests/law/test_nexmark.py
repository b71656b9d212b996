"""The queries of Nexmark, maintained while people, auctions and bids come in epochs of any size."""

from __future__ import annotations

import pytest

from penstock.bench.views.nexmark import Nexmark
from penstock.bench.views.suite import suite
from tests.law.suites import SuiteChecker

# Their windows order by a time that several bids may have, or by a price; hop and session are the planner's words.
RANKED = ("q9", "q18", "q19")
MACROS = ("q5", "q11")
GRAPH = suite("nexmark")


@pytest.mark.slow
@pytest.mark.parametrize("spacing_us", [1_000, 200_000], ids=["dense", "many_windows"])
def test_nexmark_is_its_batch_after_every_epoch(spacing_us: int) -> None:
    site, checker = Nexmark(3, spacing_us), SuiteChecker(GRAPH, definite=(*RANKED, *MACROS))
    try:
        checker.epoch([site.side_input()])
        checker.epoch(site.events(2_500))
        for size in (1, 1, 1, 47, 3, 250, 500):
            checker.epoch(site.events(size))
        checker.epoch([site.side_input(), site.bids(5)])
        assert checker.changed == {v.name for v in GRAPH.views}
    finally:
        checker.close()
