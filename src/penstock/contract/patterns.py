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

_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(\.{_OCTET}){{3}}"
_H16 = r"[0-9a-fA-F]{1,4}"
_IPV6 = "|".join(
    [
        rf"({_H16}:){{7}}{_H16}",
        rf"({_H16}:){{1,7}}:",
        rf":((:{_H16}){{1,7}}|:)",
        *(rf"({_H16}:){{{before}}}(:{_H16}){{1,{7 - before}}}" for before in range(1, 7)),
        rf"({_H16}:){{6}}{_IPV4}",
        rf"::({_H16}:){{0,5}}{_IPV4}",
        *(rf"({_H16}:){{{before}}}(:{_H16}){{0,{5 - before}}}:{_IPV4}" for before in range(1, 6)),
    ]
)
IP = rf"^({_IPV4}|{_IPV6})$"
"""An IPv4 address of four decimal numbers, or an IPv6 address in any of its spellings, without a zone."""
