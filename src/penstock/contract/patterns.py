"""Patterns that many contracts need; the decoder knows cheaper checks that say the same.

Example:
    >>> import penstock as ps
    >>> from penstock.contract import patterns
    >>> class Visit(ps.Contract):
    ...     visitor: str = ps.Field(pattern=patterns.UUID)
"""

from __future__ import annotations

UUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
"""A UUID with its dashes, in capitals or not."""
