"""Recent blocks: one stream's side of an interval join, kept until no row of the other side can meet it (semantics B3).

The join holds  low <= b's time - a's time <= high,  and rows that come behind the watermark of their own partition are
late for it. So every row still to come has a time of at least M, the smallest watermark of both streams, and

    a row of a meets no more rows once its time + high            < M
    a row of b meets no more rows once its time - low             < M
    a row of b is counted by a kept row of a until its time + (high - low) < M    (outer, semi and anti joins)

Delta rule: d = the input's delta, as it comes; rows that are dropped are no change, for what they joined stays.

Reference version: `content_sql`, the input as it is: what an unbounded side would hold.
"""

from __future__ import annotations

from penstock.plan.blocks import RecentBlock, column_list


def content_sql(block: RecentBlock, content: str) -> str:
    """The side over its input's content, or the side's delta over its input's delta."""
    return f"SELECT {column_list(block.relation.columns)} FROM {content}"


def kept_us(low_us: int, high_us: int) -> tuple[int, int]:
    """How long after their time rows of a and of b are kept, in microseconds."""
    # A row whose time is the watermark is on time, so what it may meet stays for one instant more.
    return high_us + 1, max(-low_us, high_us - low_us) + 1


def settled_us(low_us: int, high_us: int) -> tuple[int, int]:
    """How long after the time of a row of a, or of b, what it joins may still change."""
    return max(high_us, 0), max(-low_us, 0)
