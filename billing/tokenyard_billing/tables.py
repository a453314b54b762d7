"""Tables of billing: witnesses, charges (the sub-ledger), the journal and its projections.

Money is nano-dollars; times are unix milliseconds; every row belongs to one organization unless it says otherwise.
"""

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, column_property, mapped_column, relationship

from tokenyard.core.usage import DEFAULT_TIER, MAX_END_USER_CHARS, MAX_TIER_CHARS
from tokenyard.storage.columns import Count, Id, Nano, UnixMs
from tokenyard.storage.database import Base

MODEL_LENGTH = 256
PRICE_LENGTH = 320
REPLICA_LENGTH = 256
PAYMENT_IDS = "pay_"
"""How ids of payments begin; a payment's money stands in the books by its id."""
COUNTS = (
    *("prompt_tokens", "cached_tokens", "completion_tokens", "trained_tokens"),
    *("hosted_hours", "pinned_hours", "stored_months", "fees"),
)
"""The columns of charges, and of hourly usage, that say how much was used."""


def _index_where_set(name: str, column: str, *, unique: bool = False) -> Index:
    """Return an index of the rows in which `column` is not null, alike on both databases."""
    there = text(f"{column} IS NOT NULL")
    return Index(name, column, unique=unique, sqlite_where=there, postgresql_where=there)


class UsageReport(Base):
    """What one witness said of one attempt. `witness` is `gateway`, `replica` or `hold` (its lease ran out)."""

    __tablename__ = "billing_usage_reports"
    __table_args__ = (
        Index("billing_usage_reports_request", "request"),
        Index("billing_usage_reports_organization", "organization", "received_at_ms"),
    )

    attempt: Mapped[Id] = mapped_column(primary_key=True)
    witness: Mapped[str] = mapped_column(String(8), primary_key=True)
    request: Mapped[Id]
    organization: Mapped[Id]
    outcome: Mapped[str] = mapped_column(String(16))  # gateway: core.usage.Outcome; replica: finished or aborted
    prompt_tokens: Mapped[Count]
    cached_tokens: Mapped[Count]
    completion_tokens: Mapped[Count]
    claims: Mapped[str] = mapped_column(Text)  # JSON core.usage.MeterClaims
    replica: Mapped[str] = mapped_column(String(REPLICA_LENGTH), default="")
    at_ms: Mapped[UnixMs]  # by the witness's clock
    received_at_ms: Mapped[UnixMs]  # Redis time of the stream entry


class OpenRequest(Base):
    """A request that some witness spoke of and that has no charge yet.

    `deadline_ms` is Redis time: then it is decided without the missing report. None: no gateway report and no expired
    hold yet, so nothing can be decided; `looked_at_ms` is when its hold was last looked for.
    """

    __tablename__ = "billing_open_requests"
    __table_args__ = (Index("billing_open_requests_deadline", "bucket", "deadline_ms"),)

    request: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    bucket: Mapped[int] = mapped_column(Integer)
    looked_at_ms: Mapped[UnixMs]
    deadline_ms: Mapped[int | None] = mapped_column(BigInteger)
    admitted_at_ms: Mapped[UnixMs] = mapped_column(default=0)


class Charge(Base):
    """One decided request, training job or hour of a fine-tune, also where the amount is 0, or a plan's fee.

    `rule` is the row of the charge table. `charge_key` is the request id, the job id, adapter and hour, organization
    and number of the gigabyte that was kept for a month, or organization, period and number of the fee; the last two
    have no project and no key. `period` is
    the organization's own of its date, and ends in `time_zone`; `billed_in` is that of its invoice, a later one where
    its own was closed; `base_model`, `service_tier` and `price` say what it was rated by; `budgets` is a JSON list of
    budget names.
    """

    __tablename__ = "billing_charges"
    __table_args__ = (
        Index("billing_charges_billed", "organization", "billed_in"),
        Index("billing_charges_time", "organization", "admitted_at_ms"),
        Index("billing_charges_recorded", "organization", "charged_at_ms"),
        Index("billing_charges_transaction", "transaction"),
        _index_where_set("billing_charges_reverses", "reverses", unique=True),
        _index_where_set("billing_charges_credit_note", "credit_note"),
    )

    charge_key: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    project: Mapped[Id]
    key: Mapped[Id]
    kind: Mapped[str] = mapped_column(String(16))  # inference, training, hosting, storage, plan_fee or minimum
    rule: Mapped[str] = mapped_column(String(32))
    endpoint: Mapped[str] = mapped_column(String(64), default="")
    end_user: Mapped[str] = mapped_column(String(MAX_END_USER_CHARS), default="")  # as the client names it, if it does
    model: Mapped[str] = mapped_column(String(MODEL_LENGTH))
    base_model: Mapped[str] = mapped_column(String(MODEL_LENGTH))
    service_tier: Mapped[str] = mapped_column(String(MAX_TIER_CHARS), default=DEFAULT_TIER)
    price: Mapped[str] = mapped_column(String(PRICE_LENGTH))
    attempt: Mapped[str | None] = mapped_column(String(96))  # the attempt that was charged; None: none was
    prompt_tokens: Mapped[Count] = mapped_column(default=0)
    cached_tokens: Mapped[Count] = mapped_column(default=0)
    completion_tokens: Mapped[Count] = mapped_column(default=0)
    trained_tokens: Mapped[Count] = mapped_column(default=0)
    hosted_hours: Mapped[Count] = mapped_column(default=0)
    pinned_hours: Mapped[Count] = mapped_column(default=0)
    stored_months: Mapped[Count] = mapped_column(default=0)
    fees: Mapped[Count] = mapped_column(default=0)
    amount: Mapped[Nano]
    budgets: Mapped[str] = mapped_column(Text, default="[]")
    admitted_at_ms: Mapped[UnixMs]
    charged_at_ms: Mapped[UnixMs]
    period: Mapped[str] = mapped_column(String(7))  # YYYY-MM
    time_zone: Mapped[str] = mapped_column(String(64), default="UTC")
    billed_in: Mapped[str] = mapped_column(String(7))  # YYYY-MM
    transaction: Mapped[str | None] = mapped_column(String(96))  # journal transaction; None where the amount is 0
    correction: Mapped[str | None] = mapped_column(String(96))  # that made it; None: usage did
    reverses: Mapped[str | None] = mapped_column(String(96))  # the charge that this one undoes, all of it negated
    credit_note: Mapped[str | None] = mapped_column(String(96))  # that has it, instead of an invoice


class Waste(Base):
    """Work of a replica that no organization pays: the operator's cost, at the organization's price to compare."""

    __tablename__ = "billing_waste"
    __table_args__ = (
        Index("billing_waste_request", "request"),
        Index("billing_waste_organization", "organization", "at_ms"),
    )

    attempt: Mapped[Id] = mapped_column(primary_key=True)
    request: Mapped[Id]
    organization: Mapped[Id]
    model: Mapped[str] = mapped_column(String(MODEL_LENGTH))
    prompt_tokens: Mapped[Count]
    cached_tokens: Mapped[Count]
    completion_tokens: Mapped[Count]
    amount: Mapped[Nano]
    at_ms: Mapped[UnixMs]


class Alarm(Base):
    """Something an operator must look at. One row for a kind and subject, however often it is seen."""

    __tablename__ = "billing_alarms"
    __table_args__ = (Index("billing_alarms_time", "at_ms"),)

    kind: Mapped[str] = mapped_column(String(48), primary_key=True)
    subject: Mapped[str] = mapped_column(String(128), primary_key=True)  # request, attempt, job, price or stream entry
    organization: Mapped[str | None] = mapped_column(String(96))  # None where it cannot be known
    message: Mapped[str] = mapped_column(Text)
    at_ms: Mapped[UnixMs]
    id: Mapped[str] = column_property(kind + "/" + subject)


class DeadLetter(Base):
    """An event that could not be taken in. Belongs to no organization: its content may be anything."""

    __tablename__ = "billing_dead_letters"

    stream: Mapped[str] = mapped_column(String(64), primary_key=True)
    entry: Mapped[str] = mapped_column(String(48), primary_key=True)
    event: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    deliveries: Mapped[int] = mapped_column(Integer)
    at_ms: Mapped[UnixMs]
    id: Mapped[str] = column_property(stream + "/" + entry)


class Account(Base):
    """An organization's account in the journal; `name` is one of `ledger.AccountName`."""

    __tablename__ = "billing_accounts"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    opened_at_ms: Mapped[UnixMs]


class Transaction(Base):
    """The head of one journal transaction. Its entries sum to 0. Never updated, never deleted."""

    __tablename__ = "billing_transactions"
    __table_args__ = (Index("billing_transactions_organization", "organization", "posted_at_ms"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    template: Mapped[str] = mapped_column(String(32))
    reference: Mapped[str] = mapped_column(String(128))  # what it was posted for: batch, grant, job, transaction
    reason: Mapped[str] = mapped_column(Text, default="")
    actor: Mapped[str] = mapped_column(String(96), default="")
    posted_at_ms: Mapped[UnixMs]
    entries: Mapped[list["Entry"]] = relationship(order_by="Entry.number", lazy="raise", viewonly=True)


class Entry(Base):
    """One line of the journal; positive raises the account's balance. Never updated, never deleted."""

    __tablename__ = "billing_entries"
    __table_args__ = (
        ForeignKeyConstraint(["transaction"], ["billing_transactions.id"]),
        Index("billing_entries_account", "organization", "account"),
    )

    transaction: Mapped[Id] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    organization: Mapped[Id]
    account: Mapped[str] = mapped_column(String(32))
    amount: Mapped[Nano]


class Balance(Base):
    """Projection: the sum of an account's entries. `version` grows by 1 with each posting."""

    __tablename__ = "billing_balances"
    __table_args__ = (Index("billing_balances_bucket", "bucket", "account", "updated_at_ms"),)

    organization: Mapped[Id] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(String(32), primary_key=True)
    bucket: Mapped[int] = mapped_column(Integer)
    amount: Mapped[Nano]
    version: Mapped[Count]
    updated_at_ms: Mapped[UnixMs]


class Spending(Base):
    """Projection: what a scope (organization, project or key id) spent and has reserved in a UTC month."""

    __tablename__ = "billing_spending"
    __table_args__ = (Index("billing_spending_month", "scope", "month"),)

    organization: Mapped[Id] = mapped_column(primary_key=True)
    scope: Mapped[Id] = mapped_column(primary_key=True)
    month: Mapped[str] = mapped_column(String(7), primary_key=True)  # YYYY-MM, UTC
    spent: Mapped[Nano]
    reserved: Mapped[Nano]
    version: Mapped[Count]


class BudgetAlert(Base):
    """So much of a budget was used, told once in a month. `budget`: wallet or monthly_limit; `scope`: whose id."""

    __tablename__ = "billing_budget_alerts"
    __table_args__ = (Index("billing_budget_alerts_time", "organization", "at_ms", "id"),)

    organization: Mapped[Id] = mapped_column(primary_key=True)
    month: Mapped[str] = mapped_column(String(7), primary_key=True)  # YYYY-MM, UTC
    budget: Mapped[str] = mapped_column(String(16), primary_key=True)
    scope: Mapped[Id] = mapped_column(primary_key=True)
    percent: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    id: Mapped[Id] = mapped_column(unique=True)
    used: Mapped[Nano]
    total: Mapped[Nano]
    at_ms: Mapped[UnixMs]


class HourlyUsage(Base):
    """Projection: charged usage by hour of admission (UTC). Usage pages, charts and the usage API read only this."""

    __tablename__ = "billing_hourly_usage"
    __table_args__ = (
        Index("billing_hourly_usage_time", "organization", "hour_ms"),
        Index("billing_hourly_usage_hour", "hour_ms"),
    )

    organization: Mapped[Id] = mapped_column(primary_key=True)
    project: Mapped[Id] = mapped_column(primary_key=True)
    key: Mapped[Id] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    model: Mapped[str] = mapped_column(String(MODEL_LENGTH), primary_key=True)
    price: Mapped[str] = mapped_column(String(PRICE_LENGTH), primary_key=True)
    end_user: Mapped[str] = mapped_column(
        String(MAX_END_USER_CHARS), primary_key=True, default=""
    )  # empty: none was named
    hour_ms: Mapped[UnixMs] = mapped_column(primary_key=True)  # start of the hour
    requests: Mapped[Count]
    prompt_tokens: Mapped[Count]
    cached_tokens: Mapped[Count]
    completion_tokens: Mapped[Count]
    trained_tokens: Mapped[Count]
    hosted_hours: Mapped[Count]
    pinned_hours: Mapped[Count]
    stored_months: Mapped[Count]
    fees: Mapped[Count]
    amount: Mapped[Nano]


class BucketLease(Base):
    """Which worker consumes a bucket. Belongs to no organization. `watermark_ms`: all before it is committed."""

    __tablename__ = "billing_bucket_leases"

    bucket: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    holder: Mapped[str] = mapped_column(String(96), default="")
    lease_until_ms: Mapped[UnixMs] = mapped_column(default=0)
    watermark_ms: Mapped[UnixMs] = mapped_column(default=0)


class Consumer(Base):
    """A worker that wants a share of the buckets. Belongs to no organization."""

    __tablename__ = "billing_consumers"

    name: Mapped[str] = mapped_column(String(96), primary_key=True)
    alive_until_ms: Mapped[UnixMs]


class CreditGrant(Base):
    """Credit given to an organization; the same idempotency key never grants twice."""

    __tablename__ = "billing_credit_grants"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(String(128), primary_key=True)
    amount: Mapped[Nano]
    reason: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(96))
    transaction: Mapped[Id]
    granted_at_ms: Mapped[UnixMs]


class Reservation(Base):
    """Money set aside for one training job: `open` until its charge, then `charged` or `released`."""

    __tablename__ = "billing_reservations"
    __table_args__ = (Index("billing_reservations_organization", "organization", "state"),)

    job: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    project: Mapped[Id]
    key: Mapped[Id]
    amount: Mapped[Nano]
    budgets: Mapped[str] = mapped_column(Text)  # JSON list of budget names
    state: Mapped[str] = mapped_column(String(16))
    reserved_at_ms: Mapped[UnixMs]
    closed_at_ms: Mapped[int | None] = mapped_column(BigInteger)


class RateCardRow(Base):
    """A published rate card, whole. Belongs to no organization. Never updated, never deleted."""

    __tablename__ = "billing_rate_cards"

    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    effective_from_ms: Mapped[UnixMs] = mapped_column(unique=True)
    card: Mapped[str] = mapped_column(Text)  # JSON pricing.rate_cards.RateCard with sorted keys
    sha256: Mapped[str] = mapped_column(String(64))  # of `card`
    published_at_ms: Mapped[UnixMs]
    published_by: Mapped[str] = mapped_column(String(96))  # an operator's key, or `import`
    source: Mapped[str] = mapped_column(String(255))  # the imported file's name, or `api`


class UsedCardChecksum(Base):
    """A rate card that was used when only its checksum was kept: the import must bring it whole. Only read now."""

    __tablename__ = "billing_used_card_checksums"

    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    first_used_at_ms: Mapped[UnixMs]
