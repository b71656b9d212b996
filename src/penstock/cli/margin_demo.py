"""`penstock demo margin`: a market that crashes, the job, and what it led to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from penstock.apps.margin.demo import Demo
from penstock.apps.margin.market import Market, Simulation
from penstock.cli.load_options import Seconds
from penstock.cli.margin import ask_margin
from penstock.cli.tables import show_table
from penstock.connectors.audit_check import check_trail
from penstock.connectors.audit_trail import read_records
from penstock.errors import VerificationError

WORST = """
SELECT account_id, equity, requirement, excess, call_amount, sale_needed
FROM margin_calculations ORDER BY excess NULLS FIRST LIMIT 5
"""


@click.command("margin")
@click.option("--accounts", type=click.IntRange(1), default=200, show_default=True)
@click.option("--symbols", type=click.IntRange(1), default=50, show_default=True)
@click.option("--duration", type=Seconds(), default="30s", show_default=True)
@click.option("--crash", type=click.FloatRange(0, 0.99), default=0.2, show_default=True, help="By which part.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path(".penstock/demo-margin"), show_default=True)
@click.option("--ui-port", type=click.IntRange(1, 65535), help="Show the job in a browser while it runs.")
def demo_margin(
    accounts: int, symbols: int, duration: float, crash: float, seed: int, folder: Path, ui_port: int | None
) -> None:
    """Run a simulated market that crashes after two thirds, and the margin job beside it.

    Ends with the accounts that are worst off, the actions taken, and the check of their audit trail.
    """
    try:
        demo = Demo(folder)
    except FileExistsError as problem:
        raise click.UsageError(str(problem)) from None
    market = Market(accounts, symbols, seed=seed, crash_at_s=duration * 2 // 3, crash=crash)
    page = ["--ui", "--ui-port", str(ui_port)] if ui_port is not None else []
    click.echo(f"a market of {accounts} accounts and {symbols} symbols for {duration:g} s", err=True)
    if ui_port is not None:
        click.echo(f"page at http://127.0.0.1:{ui_port}", err=True)
    with demo.job(page):
        counts = demo.feed(lambda start: Simulation(market, start), duration)
    demo.drain()
    click.echo("  ".join(f"{topic} {count:,}" for topic, count in counts.items()))
    worst = ask_margin(demo.state)(WORST)
    show_table(list(worst[0]), [list(row.values()) for row in worst])
    checked = check_trail(demo.audit)
    taken = Counter(str(record["state"]) for record in read_records(demo.audit))
    click.echo("actions: " + ("  ".join(f"{state} {count}" for state, count in taken.most_common()) or "none"))
    if checked.findings:
        raise VerificationError("PS-VERIFY-003", f"{demo.audit} is not as it was written", got=str(checked.findings[0]))
    click.echo(f"audit trail: {checked.records} records in {demo.audit}, all as they were written")
    account = worst[0]["account_id"]
    click.echo(f'try: penstock margin what-if --state {demo.state} --account {account} --order "SELL 10 S00001"')
