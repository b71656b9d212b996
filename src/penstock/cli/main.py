"""The command line: one group, whose verbs are imported only when they are used.

Results go to stdout, logs and errors to stderr. Exit codes: 0 done; 1 the run failed; 2 wrong use, declaration or
contract; 3 a verification found a difference; 130 or 143 interrupted after a clean stop.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

from penstock import __version__
from penstock.errors import DeclarationError, Error, Unsupported, VerificationError
from penstock.settings import SettingsError

INTERRUPTED = 130
# Wrong use that is noticed below the declarations: no state here, an unknown connector or option, an unknown id.
_WRONG_USE = frozenset(
    {"PS-STATE-007", "PS-CONN-001", "PS-CONN-006", "PS-CONN-008", "PS-CONF-002", "PS-DATA-002", "PS-DATA-003"}
    | {"PS-DATA-005", "PS-DATA-006", "PS-DATA-007", "PS-BENCH-002", "PS-VERIFY-002"}
)


@dataclass(frozen=True)
class Verb:
    """Where a verb's click command is found, and the line that `--help` shows for it."""

    module: str
    command: str
    help: str


VERBS: dict[str, Verb] = {
    "init": Verb("penstock.cli.init", "init", "Make a small pipeline of your own, with data and a test."),
    "run": Verb("penstock.cli.run", "run", "Run a pipeline."),
    "test": Verb("penstock.cli.test", "test", "Run a pipeline's fixtures, or take it through simulated faults."),
    "plan": Verb("penstock.cli.plan", "plan", "Show what a run would build, rebuild or refuse."),
    "explain": Verb("penstock.cli.explain", "explain", "Show strategy, reason, state, bound and SQL of each block."),
    "verify": Verb("penstock.cli.verify", "verify", "Compare a pipeline with an independent batch run."),
    "ls": Verb("penstock.cli.ls", "ls", "List sources, views and sinks with their bindings."),
    "status": Verb("penstock.cli.status", "status", "Show rows in, accepted, duplicate, dead and late; offsets; lag."),
    "serve": Verb("penstock.cli.serve", "serve", "Show a pipeline in a browser, also while it runs."),
    "sql": Verb("penstock.cli.sql", "sql", "Query the views of a pipeline, also while it runs."),
    "dlq": Verb("penstock.cli.dlq", "dlq", "List, show, replay or drop dead letters."),
    "late": Verb("penstock.cli.late", "late", "List late rows, or apply them as corrections."),
    "audit": Verb("penstock.cli.audit", "audit", "Check an audit trail."),
    "state": Verb("penstock.cli.state", "state", "Write the journal, to run the same epochs again."),
    "reset": Verb("penstock.cli.reset", "reset", "Forget the state of a pipeline."),
    "topics": Verb("penstock.cli.topics", "topics", "Create, clear or describe topics."),
    "ads": Verb("penstock.cli.ads", "ads", "The ads application: its producers."),
    "margin": Verb(
        "penstock.cli.margin", "margin", "The margin application: its market, what-if, the ladder as a consumer."
    ),
    "demo": Verb("penstock.cli.demo", "demo", "ads or margin with its load for half a minute, checked."),
    "bench": Verb("penstock.cli.bench", "bench", "Measure an application, or a pipeline of your own."),
    "doctor": Verb("penstock.cli.doctor", "doctor", "Show what is installed, what is missing and what to type."),
}


class Verbs(click.Group):
    """A group that knows its verbs from a table; a verb whose module is not installed is not listed."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [name for name, verb in VERBS.items() if importlib.util.find_spec(verb.module) is not None]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        verb = VERBS.get(name)
        if verb is None or importlib.util.find_spec(verb.module) is None:
            return None
        command: click.Command = getattr(importlib.import_module(verb.module), verb.command)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0] if arguments else ""
        if name and not name.startswith("-") and self.get_command(context, name) is None:
            verbs = ", ".join(self.list_commands(context))
            raise click.UsageError(f"there is no verb {name!r}; there are: {verbs}", context)
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, VERBS[name].help) for name in self.list_commands(context)]
        if rows:
            with formatter.section("Verbs"):
                formatter.write_dl(rows)


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, message="penstock %(version)s")
def cli() -> None:
    """Declare sources, contracts, views and sinks once; run them with always the same answer.

    PIPELINE is file.py, file.py:attribute, module:attribute, file.sql or the name of an application (ads, margin).
    """


def main() -> None:
    """The program `penstock`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        result: object = cli.main(list(arguments), prog_name="penstock", standalone_mode=False)
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as problem:
        problem.show()
        return 2
    except Error as error:
        _show(error, as_json=_wants_json(arguments))
        return exit_code(error)
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def exit_code(error: Error) -> int:
    """The documented exit code of an error.

    Example:
        >>> exit_code(VerificationError("PS-VERIFY-001", "they disagree"))
        3
    """
    match error:
        case VerificationError(code="PS-VERIFY-001" | "PS-VERIFY-003"):
            return 3
        case DeclarationError() | Unsupported() | SettingsError():
            return 2
        case _:
            return 2 if error.code in _WRONG_USE else 1


def _show(error: Error, *, as_json: bool) -> None:
    click.echo(json.dumps(error.to_dict()) if as_json else error.render(), err=True)


def _wants_json(arguments: Sequence[str]) -> bool:
    following = zip(arguments, [*arguments[1:], ""], strict=True)
    return any(a == "--output=json" or (a == "--output" and b == "json") for a, b in following)


if __name__ == "__main__":
    main()
