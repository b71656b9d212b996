"""Canonical JSON (RFC 8785): one text for one value, so that its hash can be compared.

Keys are sorted by their UTF-16 code units, nothing is between the tokens, numbers are as ECMAScript writes them.
Integers that a double cannot hold exactly are refused: give them as text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal

_EXACT = 2**53


def canonical(value: object) -> bytes:
    """The canonical text of a JSON value.

    Raises:
        ValueError: it is not one (NaN, infinity, another type, an integer beyond 2^53).

    Example:
        >>> canonical({"b": [1.0, True, None], "a": "\\u20ac\\n"})
        b'{"a":"\\xe2\\x82\\xac\\\\n","b":[1,true,null]}'
    """
    return _text(value).encode()


def parsed(text: bytes) -> object:
    """The value of a canonical text. Raises ValueError where it is not JSON.

    Example:
        >>> parsed(b'{"a":9007199254740994}')
        {'a': 9007199254740994.0}
    """
    value: object = json.loads(text, parse_int=_integer)
    return value


def _integer(text: str) -> int | float:
    """What is beyond the exact integers was a double."""
    value = int(text)
    return value if abs(value) <= _EXACT else float(value)


def _text(value: object) -> str:
    match value:
        case None | bool() | str():
            return json.dumps(value, ensure_ascii=False)
        case int():
            if abs(value) > _EXACT:
                raise ValueError(f"{value} is beyond the integers that JSON numbers hold exactly")
            return str(value)
        case float():
            return _number(value)
        case list() | tuple():
            return f"[{','.join(_text(item) for item in value)}]"
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise ValueError("a key is not text")
            keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
            return f"{{{','.join(f'{_text(key)}:{_text(value[key])}' for key in keys)}}}"
        case _:
            raise ValueError(f"{type(value).__name__} is no JSON value")


def _number(value: float) -> str:
    """As ECMAScript's Number::toString: the shortest digits that give the value back."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is no JSON number")
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    point = len(text) + exponent
    if 0 < point <= 21:
        body = text + "0" * (point - len(text)) if len(text) <= point else f"{text[:point]}.{text[point:]}"
    elif -6 < point <= 0:
        body = f"0.{'0' * -point}{text}"
    else:
        fraction = f".{text[1:]}" if len(text) > 1 else ""
        body = f"{text[0]}{fraction}e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return f"-{body}" if sign else body
