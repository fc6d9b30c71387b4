"""What an endpoint cost from its create to its deletion, not only while it was measured."""

from decimal import Decimal, localcontext

from raybench.endpoints.ledger import Entry

_HOUR_NS = 3_600 * 10**9


def bill_usd(created: Entry, gone_ns: int) -> Decimal | None:
    """instances × hourly × seconds / 3600 in USD, divided last; None without a price.

    The clock starts before the create call and stops once the endpoint is seen to be gone: never too low.
    """
    if created.usd_per_hour is None:
        return None
    with localcontext(prec=60):
        return created.instances * Decimal(created.usd_per_hour) * (gone_ns - created.at_ns) / _HOUR_NS
