"""The README and the tutorial are run as a reader would: every command in order, its output compared.

A ```console block holds commands after `$ ` and the lines that they print on stdout; a line `...` stands for any
lines, and `...` within a line for any text.
A ```python, ```sql or ```toml block whose first line is a comment `file: NAME` is that file; other Python blocks are
run, and a following ```text block is what they print. ```sh blocks are for the reader alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs/tutorial").glob("*.md")),
    *(ROOT / f"docs/guides/{name}.md" for name in ("late-rows-and-dead-letters", "operations", "sessions", "windows")),
    ROOT / "docs/guides/functions.md",
    ROOT / "docs/guides/ibis.md",
    ROOT / "docs/guides/steps-and-clocks.md",
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"(?:#|--) file: (\S+)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block with the line of its first line."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1)


def as_shown(shown: list[str], printed: str) -> bool:
    def of_line(line: str) -> str:
        inside = "[^\n]*".join(re.escape(part) for part in line.rstrip().split("..."))
        return r"(?:.*\n)*?" if line == "..." else inside + r"[ \t]*\n"

    pattern = "".join(of_line(line) for line in shown)
    return re.fullmatch(pattern, printed if printed.endswith("\n") or not printed else printed + "\n") is not None


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.rstrip("\n").split("\n")
        yield command, shown


class Reader:
    """Does what a page says, in a folder of its own."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._page = page
        self._folder = folder
        self._names: dict[str, object] = {}
        self._printed = ""

    def read(self) -> int:
        done = 0
        for block in blocks(self._page):
            place = f"{self._page.name}:{block.line}"
            named = FILE.match(block.text)
            if named:
                (self._folder / named[1]).write_text(block.text[named.end() :], encoding="utf-8")
            elif block.language == "python":
                self._python(block, place)
            elif block.language == "text":
                assert as_shown(block.text.splitlines(), self._printed), f"{place}: printed\n{self._printed}"
            elif block.language == "console":
                for command, shown in commands(block.text):
                    self._command(command, shown, place)
            else:
                continue
            done += 1
        return done

    def _python(self, block: Block, place: str) -> None:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.chdir(self._folder):
            exec(compile("\n" * (block.line - 1) + block.text, place, "exec", dont_inherit=True), self._names)
        self._printed = out.getvalue()

    def _command(self, command: str, shown: list[str], place: str) -> None:
        if command.startswith("cd "):
            self._folder = self._folder / command.removeprefix("cd ").strip()
            return
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        result = subprocess.run(
            command, shell=True, cwd=self._folder, capture_output=True, text=True, env={**os.environ, "PATH": path}
        )
        assert result.returncode == 0 or shown, f"{place}: {command} failed\n{result.stderr}"
        assert as_shown(shown, result.stdout), f"{place}: {command} printed\n{result.stdout}{result.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    assert Reader(page, tmp_path).read() > 0


def test_a_wrong_output_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n```text\n3\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:5: printed\s+2"):
        Reader(page, tmp_path).read()


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}, which is not there"
