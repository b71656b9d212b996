"""Writes the reference pages that come from the code: docs/reference/cli.md and docs/errors/.

`python scripts/generate_docs.py --check` writes nothing and fails when a page is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from penstock.cli.main import VERBS, cli
from penstock.errors import CODES

ROOT = Path(__file__).parent.parent
ADVICE = ROOT / "docs/errors/advice.md"

AREAS = {
    "DECL": "A declaration is wrong. Nothing was started; every mistake is listed with file and line. Exit code 2.",
    "PLAN": "The engine cannot hold what is declared. Nothing was started. Exit code 2.",
    "CONF": "`penstock.toml`, a target, a binding or a secret is wrong. Nothing was started. Exit code 2.",
    "STATE": "The stored state cannot be used as it is. Nothing was changed.",
    "CONN": "A source or sink failed. Committed epochs are safe; a run resumes where it was.",
    "DATA": "Rows, dead letters or late rows cannot be used as asked.",
    "RUN": "A run, a query or a function of the pipeline failed. Committed epochs are safe.",
    "VERIFY": "`penstock verify` found a difference (exit code 3), or nothing to compare.",
    "TEST": "`penstock test` found rows other than those expected. Exit code 1.",
    "BENCH": "A benchmark or the demo is wrong: its figures do not count. Exit code 1.",
}


def pages() -> dict[Path, str]:
    """Every generated page and its text."""
    advice = read_advice()
    found = {ROOT / "docs/reference/cli.md": cli_page(), ROOT / "docs/errors/README.md": index_page()}
    for code, title in CODES.items():
        found[ROOT / f"docs/errors/{code}.md"] = error_page(code, title, advice.get(code, ""))
    return found


def read_advice() -> dict[str, str]:
    """What to do about an error, written by hand: sections of docs/errors/advice.md headed by the code."""
    parts = re.split(r"^## (PS-\w+-\d{3})\n", ADVICE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {code: text.strip() for code, text in zip(parts[1::2], parts[2::2], strict=True)}


def error_page(code: str, title: str, advice: str) -> str:
    area = AREAS[code.split("-")[1]]
    return f"# {code}: {title}\n\n{area}\n" + (f"\n{advice}\n" if advice else "")


def index_page() -> str:
    lines = ["# Error codes", "", "Codes are never reused. Every error says where, what was expected and what was got."]
    area = ""
    for code, title in CODES.items():
        if code.split("-")[1] != area:
            area = code.split("-")[1]
            lines += ["", f"## {area}", "", AREAS[area], ""]
        lines.append(f"- [{code}]({code}.md): {title}")
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """The help of every verb, as click prints it at 100 columns."""
    context = click.Context(cli, info_name="penstock", max_content_width=100, terminal_width=100)
    lines = ["# The command line", "", (cli.help or "").strip(), ""]
    lines += ["Results go to stdout, logs and errors to stderr. Exit codes: 0 done; 1 the run failed; 2 wrong use,"]
    lines += [
        "declaration or contract; 3 a verification found a difference; 130 or 143 interrupted after a clean stop."
    ]
    for name in VERBS:
        command = cli.get_command(context, name)
        if command is not None:
            lines += help_of(command, name, context)
    return "\n".join(lines) + "\n"


def help_of(command: click.Command, name: str, parent: click.Context) -> list[str]:
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100, terminal_width=100)
    lines = ["", f"## {context.command_path}", "", "```text", command.get_help(context), "```"]
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            child = command.get_command(context, inner)
            if child is not None:
                lines += help_of(child, inner, context)
    return lines


def main() -> int:
    outdated = [path for path, text in pages().items() if not path.is_file() or path.read_text("utf-8") != text]
    if "--check" in sys.argv:
        for path in outdated:
            print(f"{path.relative_to(ROOT)} is out of date: run `make docs`", file=sys.stderr)
        return 1 if outdated else 0
    for path in outdated:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages()[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
