"""Shipped applications, by the name under which `penstock run NAME` finds them."""

from __future__ import annotations

APPLICATIONS: dict[str, str] = {
    "ads": "penstock.apps.ads.pipeline:pipeline",
    "margin": "penstock.apps.margin.pipeline:pipeline",
}
