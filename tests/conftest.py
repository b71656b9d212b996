"""Hypothesis profiles: fixed seeds by default, `quick` with a third of the examples, `fresh` for a printed seed, `soak`
for the long run."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests import soak
from tests.examples import QUICK, SOAK

_SLOW_MACHINE = [HealthCheck.too_slow]

settings.register_profile(
    "fixed", derandomize=True, deadline=None, print_blob=True, suppress_health_check=_SLOW_MACHINE
)
settings.register_profile("quick", settings.get_profile("fixed"), max_examples=QUICK)
settings.register_profile("fresh", deadline=None, print_blob=True, suppress_health_check=_SLOW_MACHINE)
settings.register_profile(
    "soak", max_examples=SOAK, deadline=None, print_blob=True, suppress_health_check=_SLOW_MACHINE
)
settings.load_profile("fixed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A soak goes on where it was stopped."""
    done = [item for item in items if soak.has_passed(item)]
    if done:
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if item not in done]


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """What has passed in a soak stays so."""
    if call.when == "call" and call.excinfo is None and item.get_closest_marker("soak"):
        soak.mark_passed(item)
