"""What time costs where instances are paid by the second."""


def cost_usd(usd_per_hour: float | None, seconds: float | None) -> float | None:
    """USD of so many seconds; None without a price, or where nobody knows how long."""
    return None if usd_per_hour is None or seconds is None else usd_per_hour * seconds / 3600
