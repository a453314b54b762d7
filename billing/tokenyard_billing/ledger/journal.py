"""The double-entry journal. Templates are the only way to post; balances are projections in the same transaction."""

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import OrganizationId, random_text
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage import bulk
from tokenyard_billing.tables import Account, Balance, Entry, Transaction

CORRECTION = "correction"
INVOICE = "invoice"
SETTLEMENT = "settle_invoice"
CREDIT_NOTE = "credit_note"
NOTHING = NanoDollars(0)
_HEAD = ("organization", "template", "reference", "reason", "actor")


class AccountName(StrEnum):
    """An organization's accounts. Positive is what it is owed (wallet, reserved) or was earned from it (revenue).

    Negative is what it was given, what it owes by open invoices, what it paid, and what was let go of these: by void
    invoices (adjustments) and by those that will not be paid (written_off). Tax is what invoices claim for the state,
    and rounding what they claim above what was billed; below 0, where that is less.
    """

    WALLET = "wallet"
    RESERVED = "reserved"
    REVENUE = "revenue"
    GRANTED = "granted"
    RECEIVABLE = "receivable"
    CASH = "cash"
    ADJUSTMENTS = "adjustments"
    WRITTEN_OFF = "written_off"
    TAX = "tax"
    ROUNDING = "rounding"


class UnbalancedPosting(ValueError):
    """The entries do not sum to 0, or say nothing."""


class Posting(msgspec.Struct, frozen=True):
    """One transaction to be; made by the templates below."""

    organization: OrganizationId
    template: str
    reference: str
    entries: tuple[tuple[AccountName, int], ...]
    reason: str = ""
    actor: str = ""

    def __post_init__(self) -> None:
        if sum(amount for _, amount in self.entries) != 0:
            raise UnbalancedPosting(f"{self.template} of {self.reference}: entries do not sum to 0")
        if len(self.entries) < 2 or any(amount == 0 for _, amount in self.entries):
            raise UnbalancedPosting(f"{self.template} of {self.reference}: an entry moves nothing")


def credit_granted(
    organization: OrganizationId, amount: NanoDollars, *, reference: str, reason: str, actor: str
) -> Posting:
    """Give credit: the wallet grows."""
    entries = ((AccountName.WALLET, +amount), (AccountName.GRANTED, -amount))
    return Posting(organization, "grant", reference, entries, reason, actor)


def credit_paid(
    organization: OrganizationId, amount: NanoDollars, *, reference: str, reason: str, actor: str
) -> Posting:
    """Give credit that was paid for: the wallet grows by the cash that came."""
    entries = ((AccountName.WALLET, +amount), (AccountName.CASH, -amount))
    return Posting(organization, "paid_credit", reference, entries, reason, actor)


def usage_charged(organization: OrganizationId, amount: NanoDollars, *, reference: str) -> Posting:
    """Take the charges of one consumer batch from the wallet."""
    entries = ((AccountName.WALLET, -amount), (AccountName.REVENUE, +amount))
    return Posting(organization, "charge", reference, entries)


def money_reserved(organization: OrganizationId, amount: NanoDollars, *, reference: str) -> Posting:
    """Set money of the wallet aside for a training job."""
    entries = ((AccountName.WALLET, -amount), (AccountName.RESERVED, +amount))
    return Posting(organization, "reserve", reference, entries)


def reservation_lowered(organization: OrganizationId, amount: NanoDollars, *, reference: str) -> Posting:
    """Give back `amount` of what was set aside for a training job: it will not cost so much."""
    entries = ((AccountName.WALLET, +amount), (AccountName.RESERVED, -amount))
    return Posting(organization, "lower_reservation", reference, entries)


def reservation_closed(
    organization: OrganizationId, *, reserved: NanoDollars, cost: NanoDollars, reference: str
) -> Posting | None:
    """Charge a training job from what was reserved; the rest goes back to the wallet, or what lacks comes from it."""
    entries = (
        (AccountName.RESERVED, -reserved),
        (AccountName.WALLET, reserved - cost),
        (AccountName.REVENUE, +cost),
    )
    moving = _moving(entries)
    return Posting(organization, "close_reservation", reference, moving) if moving else None


def invoice_issued(
    organization: OrganizationId,
    billed: NanoDollars,
    *,
    reference: str,
    tax: NanoDollars = NOTHING,
    tax_included: NanoDollars = NOTHING,
    rounding: NanoDollars = NOTHING,
) -> Posting:
    """Let an invoice claim what is due: what was `billed` after credit, the wallet owes no more.

    Of `tax`, `tax_included` stood in what was billed, and was no revenue; the rest comes on top, as rounding does.
    """
    due = billed + tax - tax_included + rounding
    entries = (
        (AccountName.WALLET, +billed),
        (AccountName.RECEIVABLE, -due),
        (AccountName.REVENUE, -tax_included),
        (AccountName.TAX, +tax),
        (AccountName.ROUNDING, +rounding),
    )
    return Posting(organization, INVOICE, reference, _moving(entries))


def invoice_settled(
    organization: OrganizationId,
    due: NanoDollars,
    into: AccountName,
    *,
    reference: str,
    reason: str,
    actor: str,
    untaxed: NanoDollars = NOTHING,
) -> Posting:
    """Let an invoice claim nothing any more: it was paid, is void or is written off.

    `untaxed` is the tax that is owed to no state any more.
    """
    entries = ((AccountName.RECEIVABLE, +due), (into, untaxed - due), (AccountName.TAX, -untaxed))
    return Posting(organization, SETTLEMENT, reference, _moving(entries), reason, actor)


def _moving(entries: Iterable[tuple[AccountName, int]]) -> tuple[tuple[AccountName, int], ...]:
    return tuple(entry for entry in entries if entry[1])


def charges_corrected(
    organization: OrganizationId, difference: NanoDollars, *, reference: str, reason: str, actor: str
) -> Posting:
    """Change what the charges of a correction come to by `difference`, which is below 0 where they cost less now."""
    entries = ((AccountName.WALLET, -difference), (AccountName.REVENUE, +difference))
    return Posting(organization, "correct_charges", reference, entries, reason, actor)


def credit_note_issued(
    organization: OrganizationId,
    lowered: NanoDollars,
    account: AccountName,
    *,
    tax: NanoDollars,
    tax_included: NanoDollars,
    rounding: NanoDollars,
    reference: str,
    reason: str,
    actor: str,
) -> Posting:
    """Let an invoice claim less, or have let go of less: what was `lowered` of its charges is not credit.

    It undoes its part of `invoice_issued`. The tax of a void invoice went back when that was voided.
    """
    due = lowered + tax - tax_included + rounding
    untaxed = tax if account is AccountName.ADJUSTMENTS else 0
    entries = (
        (AccountName.WALLET, -lowered),
        (account, due - untaxed),
        (AccountName.TAX, untaxed - tax),
        (AccountName.REVENUE, +tax_included),
        (AccountName.ROUNDING, -rounding),
    )
    return Posting(organization, CREDIT_NOTE, reference, _moving(entries), reason, actor)


async def post(session: AsyncSession, postings: Sequence[Posting], at_ms: int) -> list[str]:
    """Write `postings` and their balances in this transaction; return the ids of the new transactions."""
    ids = [f"tx_{random_text()}" for _ in postings]
    await _write(session, list(zip(ids, postings, strict=True)), at_ms)
    return ids


async def correct(
    session: AsyncSession, organization: OrganizationId, transaction: str, *, reason: str, actor: str, at_ms: int
) -> str:
    """Reverse the entries that `transaction` really has; return the id of the correction.

    Raises:
        NotFound: the organization has no such transaction.
        Conflict: it was corrected before.
    """
    query = select(Entry.account, Entry.amount).where(
        Entry.organization == organization, Entry.transaction == transaction
    )
    actual = (await session.execute(query.order_by(Entry.number))).all()
    if not actual:
        raise NotFound(f"No transaction {transaction}.")
    identity = f"rev_{transaction}"
    if await session.get(Transaction, identity) is not None:
        raise Conflict(f"Transaction {transaction} was already corrected.")
    entries = tuple((AccountName(account), -amount) for account, amount in actual)
    posting = Posting(organization, CORRECTION, transaction, entries, reason, actor)
    await _write(session, [(identity, posting)], at_ms)
    return identity


async def lock_wallet(session: AsyncSession, organization: OrganizationId) -> None:
    """Hold the organization's wallet until the transaction ends: under it periods are closed.

    Whoever marks invoices, too, takes it before: two that wait for each other would be ended.
    """
    own = (Balance.organization == organization) & (Balance.account == AccountName.WALLET)
    await session.execute(select(Balance.version).where(own).with_for_update())


async def balances(
    session: AsyncSession, organizations: Iterable[OrganizationId], account: AccountName
) -> dict[OrganizationId, tuple[NanoDollars, int]]:
    """Return (amount, version) of one account of each organization that has it."""
    query = select(Balance.organization, Balance.amount, Balance.version).where(
        Balance.organization.in_(list(organizations)), Balance.account == account.value
    )
    rows = await session.execute(query)
    return {OrganizationId(organization): (NanoDollars(amount), version) for organization, amount, version in rows}


async def _write(session: AsyncSession, postings: Sequence[tuple[str, Posting]], at_ms: int) -> None:
    moved: dict[tuple[OrganizationId, AccountName], int] = {}
    heads, lines = [], []
    for identity, posting in postings:
        organization = posting.organization
        heads.append({"id": identity, "posted_at_ms": at_ms, **{name: getattr(posting, name) for name in _HEAD}})
        for number, (account, amount) in enumerate(posting.entries):
            lines.append(
                {
                    "transaction": identity,
                    "number": number,
                    "organization": organization,
                    "account": account.value,
                    "amount": amount,
                }
            )
            moved[organization, account] = moved.get((organization, account), 0) + amount
    keys = sorted(moved)  # two writers that lock balances in different order would block each other
    accounts = [{"organization": owner, "name": account.value, "opened_at_ms": at_ms} for owner, account in keys]
    await bulk.insert_new(session, Account, accounts)
    await bulk.insert(session, Transaction, heads)
    await bulk.insert(session, Entry, lines)
    balances = [
        {
            "organization": organization,
            "account": account.value,
            "bucket": bucket_of(organization),
            "amount": moved[organization, account],
            "version": 1,
            "updated_at_ms": at_ms,
        }
        for organization, account in keys
    ]
    await bulk.add_up(session, Balance, balances, add=("amount", "version"), replace=("updated_at_ms",))
