"""Records of one contract that try a reader: sound, cut anywhere, with changed bytes, and plain noise."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator

from penstock.contract.patterns import IP, UUID
from penstock.contract.schema import Column, Rule, Schema

# one column of each kind that the compiled kernel knows; the last field has the longest name
TRIED = Schema(
    "Tried",
    (
        Column("id", "VARCHAR", rules=(Rule("pattern", UUID),)),
        Column("ip", "VARCHAR", nullable=True, rules=(Rule("pattern", IP),)),
        Column("kind", "VARCHAR", nullable=True, rules=(Rule("one_of", ("view", "a longer choice!")),)),
        Column("note", "VARCHAR", nullable=True),
        Column("paid", "BOOLEAN", nullable=True),
        Column("price", "DOUBLE", nullable=True),
        Column("n", "BIGINT", nullable=True),
        Column("a name of more than two words", "INTEGER", nullable=True),
    ),
)
NOISE = b'0123456789abcdef"{}[],:.-+eE\\ntrufals \x00\x1f\x7f\x80\xc3\xff'


def record_of(rng: random.Random) -> dict[str, object]:
    made: dict[str, object] = {
        "id": str(uuid.UUID(int=rng.getrandbits(128))),
        "ip": rng.choice(["1.2.3.4", "255.255.255.255", "::", "1::2:3", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", None]),
        "kind": rng.choice(["view", "a longer choice!", None]),
        "note": rng.choice(
            ["", "x", "some text " * 9, "a comma, {a brace}", "some text", "naïve", 'a "quoted" one', None]
        ),
        "paid": rng.choice([True, False, None]),
        "price": rng.choice([0, -1.5e-3, 12345.678, 1e300, 7, "text", None]),
        "n": rng.choice([0, -1, 12345678, 123456789012, 9223372036854775807, 12345678901234567890, None]),
        "a name of more than two words": rng.choice([1, -(2**31), None]),
    }
    names = [name for name in made if rng.random() < 0.9]
    if rng.random() < 0.5:
        rng.shuffle(names)
    return {name: made[name] for name in names}


def text_of(rng: random.Random) -> bytes:
    separators = rng.choice([(",", ":"), (", ", ": ")])
    return json.dumps(record_of(rng), ensure_ascii=rng.random() < 0.2, separators=separators).encode()


def tried_records(seed: int, count: int) -> Iterator[bytes]:
    """Some sound ones, each of them then cut or changed."""
    rng = random.Random(seed)
    for _ in range(count):
        text = bytearray(text_of(rng))
        match rng.randrange(6):
            case 0 | 1:
                pass
            case 2:
                del text[rng.randrange(len(text)) :]
            case 3:
                for _ in range(rng.randrange(1, 4)):
                    text[rng.randrange(len(text))] = rng.choice(NOISE)
            case 4:
                text = text[: rng.randrange(len(text))] + bytes(rng.choices(NOISE, k=rng.randrange(12)))
            case _:
                text = bytearray(rng.choices(NOISE, k=rng.randrange(40)))
        yield bytes(text)


def cut_records(seed: int) -> Iterator[bytes]:
    """A sound record of each kind, cut at every length."""
    rng = random.Random(seed)
    full = {name: value for name, value in record_of(rng).items() if value is not None}
    texts = [json.dumps(full, separators=(",", ":")).encode()]
    # the values at which a cut matters, at the end of short records
    for value in (b'"view"', b'"a longer choice!"', b"-9223372036854775807", b"true", b"false", b"null", b"-1.5e-30"):
        texts += [b'{"%s":%s' % (column.name.encode(), value) for column in TRIED.columns]
    for address in (b"255.255.255.255", b"::ffff:1.2.3.4", b"1:2:3:4:5:6:7:8"):
        texts.append(b'{"ip":"%s"}' % address)
    texts.append(rb'{"note":"cut in \u00e9","id"')
    for text in texts:
        for length in range(len(text) + 1):
            yield text[:length]
