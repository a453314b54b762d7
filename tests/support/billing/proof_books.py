"""Books of two months, whose invoices prove themselves."""

from redis.asyncio import Redis

from support.billing.seal_books import SealBooks
from support.billing.stand import GLOBEX, claims, hosted, kept, settled, trained, usage
from support.billing.tax_books import APRIL_MS, DOLLAR, MAY_MS
from tokenyard.storage.database import Database
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.periods import DAY_MS

MARCH, APRIL = "inv_acme_2026-03", "inv_acme_2026-04"


async def two_months(database: Database, redis: Redis) -> SealBooks:
    """Two months of all that is charged, with tax, credit, a plan, late usage and corrections; nothing is sealed.

    A correction of April raises what March billed, and is billed in April; one of March stands in its own invoice.
    """
    books = SealBooks(database, redis)
    await books.publish("DE", "19")
    await books.live_in("DE")
    await books.grant(DOLLAR // 2)
    await books.subscribe("0.75", "3.33")
    await books.take(settled(claims("req_early"), usage(1_000, 5_003, 20)), trained("ftjob-1", 777))
    await books.take(settled(claims("req_theirs", organization=GLOBEX), usage(9, 9)), organization=GLOBEX)
    await books.pass_days()
    await books.use(41_100)
    await books.take(hosted("adapter_1"), hosted("adapter_2", pinned=True), kept(1))
    await books.correct("cheap", request="req_early")
    books.at(APRIL_MS)
    await books.close()
    await books.take(settled(claims("req_late"), usage(1_200, 40)))
    await books.pass_days(3)
    await books.take(settled(claims("req_april", admitted_at_ms=books.clock.now_ms()), usage(90_001, 12)))
    await books.correct("dear", request="req_early")
    books.at(MAY_MS)
    await books.close()
    assert {one.id for one in await books.rows(Invoice) if one.state == "open"} >= {MARCH, APRIL}
    return books


async def sealed(books: SealBooks) -> dict[str, str]:
    """Seal all days, and return what a tenant may write down."""
    books.at(MAY_MS + 2 * DAY_MS)
    return {seal.day: seal.hash for seal in await books.seal()}
