"""Hypothesis profiles: fixed seeds by default, `quick` with a third of the examples, `fresh` for a printed seed, `soak`
for the long run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

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
