"""What the desk's references are bound to until it binds its own: files of this folder, to copy and edit."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

_FOLDER = Path(__file__).parent


def default_of(reference: str) -> str:
    """The URL of a reference's default file."""
    return f"file:{_FOLDER / reference}.jsonl"


def _rules() -> dict[str, Decimal]:
    lines = (_FOLDER / "house_rules.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["rule"]: Decimal(row["value"]) for row in map(json.loads, lines)}


RULES = _rules()
"""Each house rule with its default."""
