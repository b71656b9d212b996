"""The margin pipeline: one view for each concept; what is required under stress is worked out by the same SQL."""

from __future__ import annotations

from importlib.resources import files

from penstock.apps.margin.contracts import Beta, CashEntry, Fill, HouseRule, MarketSession, Price, Scenario
from penstock.apps.margin.costs import AverageCost, FillHistory, average_cost
from penstock.apps.margin.defaults import RULES, default_of
from penstock.apps.margin.enforcement import Enforcement, enforce
from penstock.apps.margin.ladder import Standing
from penstock.apps.margin.marks import Mark, Sampled, sample
from penstock.pipeline import Pipeline

_REQUIREMENT_VIEWS = ("charges", "exposures", "concentrations", "add_ons", "requirements")


def build() -> Pipeline:
    """The pipeline."""
    margin = Pipeline("margin")
    margin.parameter("watermark", "5 seconds", type="interval", help="how far behind the newest fill timers run")
    margin.parameter("within", "7 days", type="interval", help="how long a repeated fill or entry is recognised")
    margin.clock("tick", "1s")
    margin.stream(
        "fills",
        Fill,
        event_time="timestamp",
        watermark="$watermark",
        unique="fill_id",
        within="$within",
    )
    margin.stream(
        "cash",
        CashEntry,
        event_time="timestamp",
        watermark="$watermark",
        unique="entry_id",
        within="$within",
        default="none:",
    )
    margin.table("prices", Price, key="symbol", version="timestamp", event_time="timestamp")
    margin.table("betas", Beta, key="symbol", version="timestamp", event_time="timestamp")
    margin.reference("scenarios", Scenario, allow_empty=True, default=default_of("scenarios"))
    margin.reference("house_rules", HouseRule, key="rule", allow_empty=True, default=default_of("house_rules"))
    margin.reference("market_hours", MarketSession, key="opens_at", default=default_of("market_hours"))
    margin.view("rules", _rules())
    for name in (
        "market_calendar",
        "market_now",
        "stale_symbols",
        "symbols",
        "holdings",
        "cash_balances",
        "cash_seen",
        "legs",
    ):
        margin.view(name, _sql(name))
    _add_requirements(margin, "", "cash_balances", stressed=False)
    for name in ("freshness", "margins"):
        margin.view(name, _sql(name))
    for name in ("shocks", "symbol_shocks", "stress_accounts", "stress_legs"):
        margin.view(name, _sql(name))
    _add_requirements(margin, "stress_", "stress_accounts", stressed=True)
    for name in ("stress_results", "worst_cases"):
        margin.view(name, _sql(name))
    margin.step(
        "fold_costs",
        input="fills",
        key="account_id, symbol",
        state=FillHistory,
        output=AverageCost,
        function=average_cost,
    )
    for name in ("average_costs", "trigger_terms", "triggers", "positions", "flows", "mark_inputs"):
        margin.view(name, _sql(name))
    margin.step(
        "fold_marks", input="mark_inputs", key="account_id", time="as_of", state=Sampled, output=Mark, function=sample
    )
    for name in ("marks", "margin_calculations", "standings"):
        margin.view(name, _sql(name))
    margin.step(
        "enforcement",
        input="standings",
        key="account_id",
        time="as_of",
        state=Standing,
        output=Enforcement,
        function=enforce,
    )
    # One row an action: it grows with what happens, as the audit trail does.
    margin.view("actions", _sql("actions"), key="action_id", state="unbounded")
    for name in ("positions", "margin_calculations", "stress_results", "enforcement"):
        margin.sink(name, view=name)
    margin.sink("audit", view="enforcement")
    return margin


def _add_requirements(margin: Pipeline, prefix: str, accounts: str, *, stressed: bool) -> None:
    """The views from legs to requirements. stressed: each of their rows is of a scenario."""

    def on(left: str, right: str) -> str:
        return f" AND {left}.scenario = {right}.scenario" if stressed else ""

    words = {
        "prefix": prefix,
        "accounts": accounts,
        "case_note": " under each scenario" if stressed else "",
        "case_columns": "scenario, " if stressed else "",
        "case_columns_b": "b.scenario, " if stressed else "",
        "case_join_ec": on("e", "c"),
        "case_join_eb": on("e", "b"),
        "case_join_kb": on("k", "b"),
    }
    for name in _REQUIREMENT_VIEWS:
        margin.view(prefix + name, _sql(name).format(**words))


def _sql(name: str) -> str:
    return (files(__package__) / "views" / f"{name}.sql").read_text(encoding="utf-8")


def _rules() -> str:
    columns = ",\n    ".join(f"max(value) FILTER (WHERE rule = '{rule}') AS {rule}" for rule in RULES)
    defaults = ", ".join(f"('{rule}', CAST({value} AS DECIMAL(18,6)))" for rule, value in RULES.items())
    return _sql("rules").format(columns=columns, defaults=defaults)


pipeline = build()
