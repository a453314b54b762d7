"""What happened is sealed, follows from SQL, and every invoice proves itself."""

import io

from sqlalchemy import select

from support.billing.proof_files import verifier
from support.fakes.clock import FrozenClock
from support.money.processes import PRICES
from support.money.stand import MoneyStand
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.invoice_proofs.archive import Archive
from tokenyard_billing.invoice_proofs.contents import InvoiceContents
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.invoicing.drafts import DRAFT
from tokenyard_billing.invoicing.store import WHOLE
from tokenyard_billing.sealing.loops import DailySealer
from tokenyard_billing.sealing.operator_store import SealOperatorStore

PAYABLE = 1_000  # of the stand's invoices
LATER_S = 3 * 86_400


async def check_sealed(stand: MoneyStand) -> None:
    """Afterwards no worker has a lease."""
    clock = FrozenClock(stand.clock() + LATER_S)
    leases = BucketLeases(stand.database, clock, "sealer")
    await leases.hold({})
    await DailySealer(stand.database, leases, clock).step()
    found = await SealOperatorStore(stand.database).verify("", "9999-12-31")
    assert (found.days > 0, found.more, found.difference) == (True, False, None)
    program = verifier()
    program.CENT = PAYABLE
    async with stand.database.reading() as session:
        for invoice in (await session.scalars(select(Invoice).where(Invoice.state != DRAFT).options(*WHOLE))).all():
            file = io.BytesIO()
            archive = Archive(file)
            await InvoiceContents(session, invoice, PRICES).write(archive)
            archive.close()
            program.verify(file, {})
