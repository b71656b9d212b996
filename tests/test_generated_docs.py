"""The generated pages are those that the code gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from penstock.errors import CODES

ROOT = Path(__file__).parent.parent


def test_the_reference_pages_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "scripts/generate_docs.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_no_page_is_of_a_code_that_is_gone() -> None:
    pages = {page.stem for page in (ROOT / "docs/errors").glob("PS-*.md")}
    assert pages == set(CODES)


def test_advice_is_for_codes_that_exist() -> None:
    text = (ROOT / "docs/errors/advice.md").read_text()
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings
    assert set(headings) <= set(CODES)
