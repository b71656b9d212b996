"""Rows of the TPC-H tables, drawn for given keys.

Domains, sizes and dependencies follow the specification closely enough that each of the 22 queries finds what it looks
for; the texts are simpler. A row depends on its key, on the scale and on what the generator draws next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa

from penstock.bench.views.arrays import Integers, cents, dates, drawn, picked, sentences

KEYS: Mapping[str, tuple[str, ...]] = {
    "region": ("r_regionkey",),
    "nation": ("n_nationkey",),
    "supplier": ("s_suppkey",),
    "part": ("p_partkey",),
    "partsupp": ("ps_partkey", "ps_suppkey"),
    "customer": ("c_custkey",),
    "orders": ("o_orderkey",),
    "lineitem": ("l_orderkey", "l_linenumber"),
}
FIRST_DAY = 8_035  # 1992-01-01
LAST_DAY = 10_440  # 1998-08-02
TODAY = 9_298  # 1995-06-17
REGIONS = ("AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST")
NATIONS = (
    *(("ALGERIA", 0), ("ARGENTINA", 1), ("BRAZIL", 1), ("CANADA", 1), ("EGYPT", 4), ("ETHIOPIA", 0), ("FRANCE", 3)),
    *(("GERMANY", 3), ("INDIA", 2), ("INDONESIA", 2), ("IRAN", 4), ("IRAQ", 4), ("JAPAN", 2), ("JORDAN", 4)),
    *(("KENYA", 0), ("MOROCCO", 0), ("MOZAMBIQUE", 0), ("PERU", 1), ("CHINA", 2), ("ROMANIA", 3)),
    *(("SAUDI ARABIA", 4), ("VIETNAM", 2), ("RUSSIA", 3), ("UNITED KINGDOM", 3), ("UNITED STATES", 1)),
)
SEGMENTS = ("AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY")
PRIORITIES = ("1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW")
INSTRUCTIONS = ("DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN")
MODES = ("REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB", "AIR REG")
_COLOURS = (
    "almond antique aquamarine azure beige bisque black blanched blue blush brown burlywood chartreuse chiffon "
    "chocolate coral cornsilk cream cyan dark deep dim dodger drab firebrick forest frosted gainsboro ghost goldenrod "
    "green grey honeydew hot indian ivory khaki lace lavender lawn lemon light lime linen magenta maroon medium "
    "midnight mint misty moccasin navajo navy olive orange orchid pale papaya peach peru pink plum powder puff purple "
    "red rose rosy royal saddle salmon sandy seashell sienna sky slate smoke snow spring steel tan thistle tomato "
    "turquoise violet wheat white yellow"
)
COLOURS = tuple(_COLOURS.split())
TYPES = [
    f"{size} {finish} {metal}"
    for size in ("STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO")
    for finish in ("ANODIZED", "BURNISHED", "PLATED", "POLISHED", "BRUSHED")
    for metal in ("TIN", "NICKEL", "BRASS", "STEEL", "COPPER")
]
CONTAINERS = [
    f"{size} {kind}"
    for size in ("SM", "LG", "MED", "JUMBO", "WRAP")
    for kind in ("CASE", "BOX", "BAG", "JAR", "PKG", "PACK", "CAN", "DRUM")
]
CLERKS = [f"Clerk#{number:09d}" for number in range(1, 1001)]


@dataclass(frozen=True)
class Scale:
    """How many keys there are of each kind; factor 1 has 6 million lines."""

    factor: float

    @property
    def suppliers(self) -> int:
        return max(10, round(10_000 * self.factor))

    @property
    def parts(self) -> int:
        return max(40, round(200_000 * self.factor))

    @property
    def customers(self) -> int:
        return max(30, round(150_000 * self.factor))

    @property
    def orders(self) -> int:
        return 10 * self.customers


@cache
def _comments() -> list[str]:
    return sentences(1, 2_000)


@cache
def _supplier_comments() -> list[str]:
    return sentences(2, 400, ("Customer", "Complaints"), every=40)


@cache
def _order_comments() -> list[str]:
    return sentences(3, 2_000, ("special", "requests"), every=70)


def first_keys(scale: Scale) -> dict[str, Integers]:
    """The keys of every table before anything changes, one row each."""
    orders = np.arange(1, scale.orders + 1)
    lines = orders * 7_919 % 7 + 1
    of_order = np.repeat(orders, lines)
    number = np.arange(len(of_order)) - np.repeat(np.cumsum(lines) - lines, lines) + 1
    parts = np.repeat(np.arange(1, scale.parts + 1), 4)
    simple = {
        "region": len(REGIONS),
        "nation": len(NATIONS),
        "supplier": scale.suppliers,
        "part": scale.parts,
        "customer": scale.customers,
    }
    first = {"region": 0, "nation": 0}
    keys = {name: np.arange(count)[:, None] + first.get(name, 1) for name, count in simple.items()}
    # With few suppliers two of a part's four may be one.
    pairs = np.stack([parts, supplier_of(scale, parts, np.arange(len(parts)) % 4)], axis=1)
    keys["partsupp"] = np.unique(pairs, axis=0)
    keys["orders"] = orders[:, None]
    keys["lineitem"] = np.stack([of_order, number], axis=1)
    return keys


def supplier_of(scale: Scale, parts: Integers, choice: Integers) -> Integers:
    """One of the four suppliers of each part."""
    count = scale.suppliers
    return (parts + choice * (count // 4 + (parts - 1) // count)) % count + 1


def draw_rows(table: str, keys: Integers, scale: Scale, random: np.random.Generator) -> pa.Table:
    """Rows with these keys, all else drawn."""
    return _ROWS[table](keys, scale, random)


def _region(keys: Integers, scale: Scale, random: np.random.Generator) -> pa.Table:
    comments = drawn(random, _comments(), len(keys))
    return pa.table({"r_regionkey": keys[:, 0], "r_name": picked(REGIONS, keys[:, 0] % 5), "r_comment": comments})


def _nation(keys: Integers, scale: Scale, random: np.random.Generator) -> pa.Table:
    places = keys[:, 0] % len(NATIONS)
    regions = np.array([region for _, region in NATIONS])
    return pa.table(
        {
            "n_nationkey": keys[:, 0],
            "n_name": picked([name for name, _ in NATIONS], places),
            "n_regionkey": regions[places],
            "n_comment": drawn(random, _comments(), len(keys)),
        }
    )


def _supplier(keys: Integers, scale: Scale, random: np.random.Generator) -> pa.Table:
    nations = random.integers(0, len(NATIONS), len(keys))
    return pa.table(
        {
            "s_suppkey": keys[:, 0],
            "s_name": [f"Supplier#{key:09d}" for key in keys[:, 0].tolist()],
            "s_address": drawn(random, _comments(), len(keys)),
            "s_nationkey": nations,
            "s_phone": _phones(nations, random),
            "s_acctbal": cents(random.integers(-99_999, 999_999, len(keys))),
            "s_comment": drawn(random, _supplier_comments(), len(keys)),
        }
    )


def _part(keys: Integers, scale: Scale, random: np.random.Generator) -> pa.Table:
    rows = len(keys)
    colours = random.integers(0, len(COLOURS), (rows, 5)).tolist()
    makers, brands = random.integers(1, 6, rows), random.integers(1, 6, rows)
    return pa.table(
        {
            "p_partkey": keys[:, 0],
            "p_name": [" ".join(COLOURS[place] for place in places) for places in colours],
            "p_mfgr": picked([f"Manufacturer#{n}" for n in range(6)], makers),
            "p_brand": picked([f"Brand#{n:02d}" for n in range(56)], makers * 10 + brands),
            "p_type": drawn(random, TYPES, rows),
            "p_size": random.integers(1, 51, rows),
            "p_container": drawn(random, CONTAINERS, rows),
            "p_retailprice": cents(_retail_price(keys[:, 0])),
            "p_comment": drawn(random, _comments(), rows),
        }
    )


def _retail_price(parts: Integers) -> Integers:
    return 90_000 + parts // 10 % 20_001 + 100 * (parts % 1_000)


def _partsupp(keys: Integers, scale: Scale, random: np.random.Generator) -> pa.Table:
    return pa.table(
        {
            "ps_partkey": keys[:, 0],
            "ps_suppkey": keys[:, 1],
            "ps_availqty": random.integers(1, 10_000, len(keys)),
            "ps_supplycost": cents(random.integers(100, 100_001, len(keys))),
            "ps_comment": drawn(random, _comments(), len(keys)),
        }
    )


def _customer(keys: Integers, scale: Scale, random: np.random.Generator) -> pa.Table:
    nations = random.integers(0, len(NATIONS), len(keys))
    return pa.table(
        {
            "c_custkey": keys[:, 0],
            "c_name": [f"Customer#{key:09d}" for key in keys[:, 0].tolist()],
            "c_address": drawn(random, _comments(), len(keys)),
            "c_nationkey": nations,
            "c_phone": _phones(nations, random),
            "c_acctbal": cents(random.integers(-99_999, 999_999, len(keys))),
            "c_mktsegment": drawn(random, SEGMENTS, len(keys)),
            "c_comment": drawn(random, _comments(), len(keys)),
        }
    )


def _phones(nations: Integers, random: np.random.Generator) -> list[str]:
    parts = random.integers(100, 1_000, (len(nations), 3)).tolist()
    return [f"{n + 10}-{a}-{b}-{c:04d}" for n, (a, b, c) in zip(nations.tolist(), parts, strict=True)]


def _orders(keys: Integers, scale: Scale, random: np.random.Generator) -> pa.Table:
    rows = len(keys)
    days = _order_days(keys[:, 0])
    # A third of the customers has no orders.
    customers = random.integers(0, max(1, scale.customers * 2 // 3), rows)
    status = np.where(days + 121 <= TODAY, 0, np.where(days > TODAY, 1, random.integers(0, 3, rows)))
    return pa.table(
        {
            "o_orderkey": keys[:, 0],
            "o_custkey": customers // 2 * 3 + customers % 2 + 1,
            "o_orderstatus": picked(("F", "O", "P"), status),
            "o_totalprice": cents(random.integers(90_000, 50_000_000, rows)),
            "o_orderdate": dates(days),
            "o_orderpriority": drawn(random, PRIORITIES, rows),
            "o_clerk": drawn(random, CLERKS, rows),
            "o_shippriority": np.zeros(rows, dtype=np.int64),
            "o_comment": drawn(random, _order_comments(), rows),
        }
    )


def _order_days(orders: Integers) -> Integers:
    """An order's day is a function of its key, so that its lines know it."""
    days: Integers = FIRST_DAY + orders * 1_000_003 % (LAST_DAY - FIRST_DAY)
    return days


def _lineitem(keys: Integers, scale: Scale, random: np.random.Generator) -> pa.Table:
    rows = len(keys)
    parts, quantities = random.integers(1, scale.parts + 1, rows), random.integers(1, 51, rows)
    ordered = _order_days(keys[:, 0])
    shipped = ordered + random.integers(1, 122, rows)
    received = shipped + random.integers(1, 31, rows)
    flags = np.where(received <= TODAY, random.integers(0, 2, rows), 2)
    return pa.table(
        {
            "l_orderkey": keys[:, 0],
            "l_partkey": parts,
            "l_suppkey": supplier_of(scale, parts, random.integers(0, 4, rows)),
            "l_linenumber": keys[:, 1],
            "l_quantity": cents(100 * quantities),
            "l_extendedprice": cents(quantities * _retail_price(parts)),
            "l_discount": cents(random.integers(0, 11, rows)),
            "l_tax": cents(random.integers(0, 9, rows)),
            "l_returnflag": picked(("R", "A", "N"), flags),
            "l_linestatus": picked(("F", "O"), (shipped > TODAY).astype(np.int64)),
            "l_shipdate": dates(shipped),
            "l_commitdate": dates(ordered + random.integers(30, 91, rows)),
            "l_receiptdate": dates(received),
            "l_shipinstruct": drawn(random, INSTRUCTIONS, rows),
            "l_shipmode": drawn(random, MODES, rows),
            "l_comment": drawn(random, _comments(), rows),
        }
    )


_ROWS: Mapping[str, Callable[[Integers, Scale, np.random.Generator], pa.Table]] = {
    "region": _region,
    "nation": _nation,
    "supplier": _supplier,
    "part": _part,
    "partsupp": _partsupp,
    "customer": _customer,
    "orders": _orders,
    "lineitem": _lineitem,
}
