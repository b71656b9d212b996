"""`penstock audit`: checking an audit trail."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from penstock.cli.options import Output, output_option
from penstock.connectors.audit_check import check_trail
from penstock.connectors.audit_sink import signing_key
from penstock.errors import VerificationError


@click.group()
def audit() -> None:
    """Audit trails: what a sink bound to `audit:FOLDER` has written."""


@audit.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--key-env", metavar="NAME", help="Environment variable with the key that the head is signed with.")
@output_option
def verify(folder: Path, key_env: str | None, output: Output) -> None:
    """Read the trail in FOLDER and name every record that was changed, removed, swapped, moved or added.

    Exit code 3 if there is one.
    """
    checked = check_trail(folder, signing_key(key_env))
    if output == "json":
        click.echo(json.dumps(asdict(checked), indent=2))
    else:
        for finding in checked.findings:
            click.echo(str(finding))
        signed = "its signature fits" if checked.signed else "its signature was not checked (--key-env)"
        click.echo(f"{checked.records} records in {len(checked.heads)} chains; the head: {signed}")
    if checked.findings:
        first = checked.findings[0]
        raise VerificationError(
            "PS-VERIFY-003",
            f"{folder}: {len(checked.findings)} findings",
            expected="the trail as it was written",
            got=str(first),
        )
