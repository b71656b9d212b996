"""The options that describe a load of ad events, for all commands that make one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar

import click

from penstock.apps.ads.faults import Disturbance
from penstock.apps.ads.mapping import ADS_PER_CAMPAIGN, CAMPAIGNS
from penstock.apps.ads.producer import Production
from penstock.bench.arrivals import Load, arrival_names
from penstock.durations import parse_duration

P = ParamSpec("P")
R = TypeVar("R")


class Seconds(click.ParamType[float]):
    """A duration such as `10s`, `500ms` or `1 minute`, as seconds."""

    name = "duration"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return parse_duration(str(value)).total_seconds()
        except ValueError as problem:
            self.fail(str(problem), parameter, context)


PRESETS: dict[str, dict[str, object]] = {
    "high-throughput": {"producers": 4, "rate": 50_000.0, "partitions": 4},
    # The job's epochs need no setting: an epoch takes what has come, and waits for nothing.
    "low-latency": {"window": 5.0, "partitions": 1},
    "bursty": {"arrivals": "mmpp"},
}


@dataclass(frozen=True)
class LoadDefaults:
    """Where commands differ: events per producer and second, how long, and what is wrong with the load."""

    rate: float = 20_000.0
    duration_s: float = 60.0
    disturbance: Disturbance = field(default_factory=Disturbance)


def _preset(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """The values of a preset become defaults, so that options which are typed win."""
    if value is not None:
        context.default_map = {**(context.default_map or {}), **PRESETS[value]}


def load_options(
    defaults: LoadDefaults,
) -> Callable[[Callable[Concatenate[Production, P], R]], Callable[..., R]]:
    """Give a command the options of a load; it gets them as one `Production` whose folders are still empty."""

    def decorate(command: Callable[Concatenate[Production, P], R]) -> Callable[..., R]:
        @click.option(
            "--preset",
            type=click.Choice(list(PRESETS)),
            callback=_preset,
            is_eager=True,
            expose_value=False,
            help="Other defaults for several options at once.",
        )
        @click.option("--producers", type=click.IntRange(1), default=2, show_default=True, help="Producer processes.")
        @click.option("--rate", type=float, default=defaults.rate, show_default=True, help="Events/s of each producer.")
        @click.option("--duration", type=Seconds(), default=f"{defaults.duration_s:g}s", show_default=True)
        @click.option("--total", type=click.IntRange(1), help="Stop each producer after that many events.")
        @click.option(
            "--arrivals", default="poisson", show_default=True, help=f"Arrival process: {', '.join(arrival_names())}."
        )
        @click.option("--rate-ratio", type=float, default=5.0, show_default=True, help="mmpp: high over low rate.")
        @click.option("--q12", type=float, default=0.5, show_default=True, help="mmpp: changes low to high per second.")
        @click.option("--q21", type=float, default=0.5, show_default=True, help="mmpp: changes high to low per second.")
        @click.option("--window", type=Seconds(), default="10s", show_default=True, help="Length of the windows.")
        @click.option("--campaigns", type=click.IntRange(1), default=CAMPAIGNS, show_default=True)
        @click.option("--ads", "ads_each", type=click.IntRange(1), default=ADS_PER_CAMPAIGN, show_default=True)
        @click.option("--seed", type=click.IntRange(0), default=20_000, show_default=True, help="Seed of everything.")
        @click.option("--fsync", default="5ms", show_default=True, help="commit, none or a duration.")
        @click.option("--linger", type=Seconds(), default="1ms", show_default=True, help="Least time between sends.")
        @click.option("--broken", type=float, default=defaults.disturbance.broken, show_default=True, help="Share.")
        @click.option("--late", type=float, default=defaults.disturbance.late, show_default=True, help="Share.")
        @click.option("--late-by", type=Seconds(), default="60s", show_default=True, help="How late those are.")
        @click.option("--duplicates", type=float, default=0.0, show_default=True, help="Share sent twice.")
        @click.option("--disorder", type=Seconds(), default="0s", show_default=True, help="Event times back by up to.")
        @functools.wraps(command)
        def wrapper(
            producers: int,
            rate: float,
            duration: float,
            total: int | None,
            arrivals: str,
            rate_ratio: float,
            q12: float,
            q21: float,
            window: float,
            campaigns: int,
            ads_each: int,
            seed: int,
            fsync: str,
            linger: float,
            broken: float,
            late: float,
            late_by: float,
            duplicates: float,
            disorder: float,
            *rest: P.args,
            **options: P.kwargs,
        ) -> R:
            production = Production(
                topic="",
                ledger="",
                producers=producers,
                load=Load(rate, rate_ratio, q12, q21),
                arrivals=arrivals,
                duration_s=duration,
                total=total,
                window_s=window,
                campaigns=campaigns,
                ads_per_campaign=ads_each,
                seed=seed,
                fsync=fsync,
                linger_ms=linger * 1e3,
                disturbance=Disturbance(broken, duplicates, late, late_by, disorder),
            )
            return command(production, *rest, **options)

        return wrapper

    return decorate
