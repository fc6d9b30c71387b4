"""What it takes to serve a demand: whole copies of a setting, their instances and dollars."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEADROOM = 0.2
"""The share of a copy's measured throughput that is kept free: demand comes unevenly, and a full queue only grows."""

MONTH_H = 730
DEMANDS = (1, 10, 100, 1_000, 10_000)
"""Requests a minute that the table speaks of."""


@dataclass(frozen=True, slots=True)
class Supply:
    """So many instances, and USD a month (None without a price), for a demand in requests a minute."""

    demand: float
    instances: int
    usd_per_month: float | None


def need(row: Mapping[str, Any], demand: float) -> Supply | None:
    """What a setting, a row of TRIALS, needs for a demand; None where it served nothing."""
    served = row["transactions_per_minute"]
    if not served:
        return None
    copies = max(1, math.ceil(demand / (served * (1 - HEADROOM))))
    instances, price = copies * (row["instance_count"] or 1), row["price_per_hour"]
    return Supply(demand, instances, None if price is None else instances * price * MONTH_H)
