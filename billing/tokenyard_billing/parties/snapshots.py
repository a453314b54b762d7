"""The parties of an invoice or a credit note: as they are now, and as they were when it was issued.

They were checked when they were stated, and are read as they stand: what was right then is shown for ever.
"""

import msgspec
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard_billing.parties.party import Buyer, Seller
from tokenyard_billing.parties.tables import BillingDetails, DocumentParties, IssuerDetails


class Parties(msgspec.Struct, frozen=True):
    """None is who has stated nothing."""

    seller: Seller | None = None
    buyer: Buyer | None = None


async def current_parties(session: AsyncSession, organization: OrganizationId, issuer: str) -> Parties:
    seller, buyer = await session.get(IssuerDetails, issuer), await session.get(BillingDetails, organization)
    return Parties(
        None if seller is None else Seller.model_construct(**seller.details),
        None if buyer is None else Buyer.model_construct(**buyer.details),
    )


async def keep_parties(session: AsyncSession, document: str, organization: OrganizationId, issuer: str) -> None:
    """Write down who they are, with the invoice or credit note that is being issued: it stays as it is."""
    parties = await current_parties(session, organization, issuer)
    session.add(
        DocumentParties(
            document=document, organization=organization, seller=stated(parties.seller), buyer=stated(parties.buyer)
        )
    )


async def kept_parties(session: AsyncSession, document: str) -> Parties:
    """Return who they were; of what was issued before they were written down, nothing is known."""
    row = await session.get(DocumentParties, document)
    if row is None:
        return Parties()
    return Parties(
        Seller.model_construct(**row.seller) if row.seller else None,
        Buyer.model_construct(**row.buyer) if row.buyer else None,
    )


def stated(party: BaseModel | None) -> dict[str, object]:
    """Return what a party states, as SQL and the audit log keep it."""
    return {} if party is None else party.model_dump(exclude_defaults=True)
