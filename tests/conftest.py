"""Hypothesis profiles: fixed seeds by default, `fresh` for a printed one, `soak` for the long run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_SLOW_MACHINE = [HealthCheck.too_slow]

settings.register_profile(
    "fixed", derandomize=True, deadline=None, print_blob=True, suppress_health_check=_SLOW_MACHINE
)
settings.register_profile("fresh", deadline=None, print_blob=True, suppress_health_check=_SLOW_MACHINE)
settings.register_profile(
    "soak", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=_SLOW_MACHINE
)
settings.load_profile("fixed")
