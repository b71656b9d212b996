"""Which ad belongs to which campaign: the reference `campaigns`.

The mapping is a function of the seed and the two counts alone, so that producers, job and verifier that are told the
same numbers agree on it without talking to each other.
"""

from __future__ import annotations

import json

import numpy as np

from penstock.connectors.log import LogTopic, LogWriter
from penstock.errors import DeclarationError

CAMPAIGNS = 10
ADS_PER_CAMPAIGN = 100
MAPPING_SEED = 4


def create_ad_campaign_mappings(
    campaigns: int = CAMPAIGNS, ads_per_campaign: int = ADS_PER_CAMPAIGN, seed: int = MAPPING_SEED
) -> dict[str, int]:
    """The campaign of each ad: `{ad_id: campaign_id}`, ad ids being UUIDs and campaign ids counting from 1.

    Raises:
        DeclarationError: PS-BENCH-003, a count is not positive.

    Example:
        >>> len(create_ad_campaign_mappings())
        1000
    """
    for name, count in (("campaigns", campaigns), ("ads per campaign", ads_per_campaign)):
        if count < 1:
            raise DeclarationError(
                "PS-BENCH-003", f"the number of {name} is invalid", expected="at least 1", got=str(count)
            )
    rng = np.random.default_rng(seed)
    ads = random_uuids(rng, campaigns * ads_per_campaign)
    return {ad: number // ads_per_campaign + 1 for number, ad in enumerate(ads)}


def random_uuids(rng: np.random.Generator, count: int) -> list[str]:
    """Version 4 UUIDs as text, drawn from `rng`."""
    digits = rng.bytes(16 * count).hex()
    return [_uuid(digits[at : at + 32]) for at in range(0, 32 * count, 32)]


def _uuid(digits: str) -> str:
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def write_mapping(topic: LogTopic, mapping: dict[str, int]) -> None:
    """Append `mapping` to the topic of the reference as one complete version, durably."""
    records = [
        json.dumps({"ad_id": ad, "campaign_id": campaign}, separators=(",", ":")).encode()
        for ad, campaign in mapping.items()
    ]
    writer = LogWriter(topic, fsync="commit")
    try:
        writer.append(0, records)
        for partition in range(topic.partitions):
            writer.end_version(partition)
        writer.flush()
    finally:
        writer.close()
