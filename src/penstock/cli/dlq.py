"""`penstock dlq`: the records that broke their contract."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import click

from penstock.cli.options import PipelineOptions, pipeline_options
from penstock.cli.tables import show_table
from penstock.errors import DataError
from penstock.runtime.access import ask_state
from penstock.runtime.answers import MAX_ROWS
from penstock.runtime.lock import StateLock
from penstock.runtime.masking import masked_letter

COLUMNS = ("id", "source", "partition", "offset", "epoch", "rule", "field", "got", "status")


@click.group()
def dlq() -> None:
    """List, show, replay or drop dead letters."""


@dlq.command("ls")
@click.option("--source", metavar="NAME", help="Only those of this source.")
@click.option("--status", type=click.Choice(["dead", "replayed", "dropped", "kept", "reread"]), help="Only those.")
@click.option("--rule", metavar="RULE", help="Only those that broke this rule.")
@click.option("--limit", type=click.IntRange(1, MAX_ROWS), default=100, show_default=True, help="At most so many.")
@click.option("--offset", type=click.IntRange(0), default=0, show_default=True, help="After so many.")
@click.option("--reveal", is_flag=True, help="Show personal data in the clear.")
@pipeline_options
def list_(
    options: PipelineOptions,
    source: str | None,
    status: str | None,
    rule: str | None,
    limit: int,
    offset: int,
    reveal: bool,
) -> None:
    """List the dead letters of PIPELINE, oldest first."""
    job = options.load()
    request = {"do": "dlq.ls", "source": source, "status": status, "rule": rule, "limit": limit, "offset": offset}
    reply = ask_state(job.graph, job.target.state, request, typed=options.pipeline)
    letters = [masked_letter(job.graph, x, reveal=reveal) for x in cast(list[dict[str, Any]], reply["letters"])]
    if options.output == "json":
        for letter in letters:
            click.echo(json.dumps(letter))
    else:
        show_table(COLUMNS, [[letter[c] for c in COLUMNS] for letter in letters])
    total = cast(int, reply["total"])
    if len(letters) < total:
        click.echo(f"{len(letters):,} of {total:,} dead letters; more with --limit and --offset", err=True)


@dlq.command("show")
@click.option("--reveal", is_flag=True, help="Show personal data in the clear.")
@pipeline_options
@click.argument("id")
def show(options: PipelineOptions, id: str, reveal: bool) -> None:
    """Show one dead letter of PIPELINE whole; ID may be the beginning of one."""
    job = options.load()
    reply = ask_state(job.graph, job.target.state, {"do": "dlq.show", "id": id}, typed=options.pipeline)
    letter = masked_letter(job.graph, cast(dict[str, Any], reply["letter"]), reveal=reveal)
    if options.output == "json":
        click.echo(json.dumps(letter))
        return
    width = max(len(name) for name in letter)
    for name, value in letter.items():
        click.echo(f"{name.ljust(width)}  {'' if value is None else value}")


@dataclass(frozen=True)
class _Chosen:
    """Which dead letters a command is for."""

    options: PipelineOptions
    ids: tuple[str, ...]
    everything: bool
    source: str | None
    rule: str | None

    def ask(self, verb: str) -> Mapping[str, object]:
        """Let the state do `verb` with them."""
        if bool(self.ids) == self.everything:
            raise DataError(
                "PS-DATA-002",
                "which dead letters?",
                expected="ids, or --all (with --source and --rule)",
                got=" ".join(self.ids),
            )
        job = self.options.load()
        request = {"do": verb, "ids": list(self.ids), "source": self.source, "rule": self.rule}
        return ask_state(job.graph, job.target.state, request, typed=self.options.pipeline)


def _chosen(command: Callable[[_Chosen], None]) -> Callable[..., None]:
    """The options that name dead letters, as one argument."""

    @click.option("--all", "everything", is_flag=True, help="All that are dead.")
    @click.option("--source", metavar="NAME", help="With --all: only those of this source.")
    @click.option("--rule", metavar="RULE", help="With --all: only those that broke this rule.")
    @pipeline_options
    @click.argument("ids", nargs=-1)
    @functools.wraps(command)
    def with_options(
        options: PipelineOptions, ids: tuple[str, ...], everything: bool, source: str | None, rule: str | None
    ) -> None:
        command(_Chosen(options, ids, everything, source, rule))

    return with_options


@dlq.command("replay")
@_chosen
def replay(chosen: _Chosen) -> None:
    """Judge dead letters of PIPELINE again; what is accepted counts once, however often it is replayed."""
    reply = chosen.ask("dlq.replay")
    options = chosen.options
    running = StateLock.holder(options.load().target.state) is not None
    when = "the running job judges them now" if running else f"judged by the next penstock run {options.pipeline}"
    _tell(options, {"requested": reply["requested"]}, f"{reply['requested']} to judge again; {when}")


@dlq.command("drop")
@_chosen
def drop(chosen: _Chosen) -> None:
    """Mark dead letters of PIPELINE as done with; they stay kept and counted."""
    reply = chosen.ask("dlq.drop")
    _tell(chosen.options, {"dropped": reply["dropped"]}, f"{reply['dropped']} dropped")


def _tell(options: PipelineOptions, reply: dict[str, object], sentence: str) -> None:
    click.echo(json.dumps(reply) if options.output == "json" else sentence)
