"""Which partition a key belongs to: murmur2, exactly as Kafka's clients do it (semantics V5)."""

from __future__ import annotations

from functools import lru_cache

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit hash that Kafka's Java client computes, as an unsigned number."""
    length = len(data)
    value = (_SEED ^ length) & _MASK
    whole = length - length % 4
    for position in range(0, whole, 4):
        k = int.from_bytes(data[position : position + 4], "little") * _MULTIPLIER & _MASK
        k ^= k >> 24
        value = (value * _MULTIPLIER & _MASK) ^ (k * _MULTIPLIER & _MASK)
    if length > whole:
        value ^= int.from_bytes(data[whole:], "little")
        value = value * _MULTIPLIER & _MASK
    value ^= value >> 13
    value = value * _MULTIPLIER & _MASK
    return value ^ (value >> 15)


@lru_cache(maxsize=1 << 17)
def partition_for(key: bytes, partitions: int) -> int:
    """The partition of `key` among so many.

    Example:
        >>> partition_for(b"foobar", 3)
        0
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions
