"""`penstock init`: a small pipeline of the user's own, with data, a test and a target."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from penstock.errors import DeclarationError
from penstock.pipeline import NAME

_SUFFIX = ".txt"


@click.command()
@click.argument("name")
def init(name: str) -> None:
    """Make the folder NAME with a pipeline, data with a few broken and late rows, a test and a target."""
    pipeline = "".join(character if character.isalnum() else "_" for character in Path(name).name)
    if not NAME.match(pipeline):
        raise DeclarationError(
            "PS-DECL-001", "the pipeline's name is invalid", expected="a letter, then letters, digits, _", got=name
        )
    folder = Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DeclarationError(
            "PS-DECL-014", f"{folder} exists already", expected="a new or empty folder", got=str(folder)
        )
    for path, text in _files(files("penstock.cli") / "templates" / "first", Path()):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.replace("{{name}}", pipeline), encoding="utf-8")
        click.echo(f"made {target}")
    click.echo(f"\nnext:\n  cd {folder}\n  penstock test pipeline.py\n  penstock run pipeline.py --once")


def _files(folder: Traversable, inside: Path) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _files(entry, inside / entry.name)
        else:
            found.append((inside / entry.name.removesuffix(_SUFFIX), entry.read_text(encoding="utf-8")))
    return found
