"""PIPELINE comes first on every verb that has one."""

from __future__ import annotations

import click
import pytest

from penstock.cli.main import VERBS, cli


def commands() -> list[tuple[str, click.Command]]:
    context = click.Context(cli)
    found = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", child) for inner, child in command.commands.items()]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_pipeline_is_the_first_argument(name: str, command: click.Command) -> None:
    arguments = [p.name for p in command.params if isinstance(p, click.Argument)]
    assert "pipeline" not in arguments or arguments[0] == "pipeline", name
    assert command.help, f"{name} has no help"


def test_the_table_lists_every_verb_module() -> None:
    assert {verb.module for verb in VERBS.values()} == {f"penstock.cli.{name}" for name in VERBS}
