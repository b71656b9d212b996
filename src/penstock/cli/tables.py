"""Plain tables for terminals: aligned columns, nothing cut that a script would need (scripts use `--output json`)."""

from __future__ import annotations

from collections.abc import Sequence

import click


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, total: int | None = None) -> None:
    """Print rows under their column names, and how many there are."""
    cells = [[_cell(v) for v in row] for row in rows]
    widths = [max([len(c), *(len(row[n]) for row in cells)]) for n, c in enumerate(columns)]
    click.secho("  ".join(c.ljust(w) for c, w in zip(columns, widths, strict=True)).rstrip(), bold=True)
    for given, row in zip(rows, cells, strict=True):
        aligned = [
            text.rjust(w) if isinstance(value, int | float) and not isinstance(value, bool) else text.ljust(w)
            for value, text, w in zip(given, row, widths, strict=True)
        ]
        click.echo("  ".join(aligned).rstrip())
    shown = len(rows)
    whole = shown if total is None else total
    more = f", {shown} shown" if whole > shown else ""
    click.secho(f"({whole} row{'' if whole == 1 else 's'}{more})", dim=True)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace("\n", "\\n")
