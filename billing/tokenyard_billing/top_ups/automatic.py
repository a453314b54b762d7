"""What an organization wants to be bought by itself, and what keeps it from being bought."""

import msgspec
from sqlalchemy import ColumnElement, and_, exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import CENT, NanoDollars
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import AuditLog, Database
from tokenyard_billing.payments.posting import CANCELLED, FAILED
from tokenyard_billing.payments.tables import Payment, PaymentCustomer
from tokenyard_billing.top_ups.buying import MOST, check_amount
from tokenyard_billing.top_ups.tables import AutomaticTopUp

KEYS = "automatic:"
"""How the idempotency keys of all that was bought by itself begin, and of nothing else."""


class StatedTopUp(msgspec.Struct, frozen=True):
    """Money is nano-dollars. `failure_code` says why no more is bought until it or the method is changed."""

    organization: OrganizationId
    threshold: NanoDollars
    amount: NanoDollars
    month_limit: NanoDollars
    changed_at_ms: int
    failure_code: str = ""


class AutomaticTopUps:
    def __init__(self, database: Database, audit: AuditLog, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    async def get(self, organization: OrganizationId) -> StatedTopUp:
        """Return what is stated; where nothing is, raise `NotFound`."""
        async with self._database.reading() as session:
            row = await _stated(session, organization)
            return await _with_refusal(session, row)

    async def state(
        self,
        organization: OrganizationId,
        *,
        threshold: NanoDollars,
        amount: NanoDollars,
        month_limit: NanoDollars,
        actor: ApiKeyId,
    ) -> StatedTopUp:
        """State it whole, in place of what was stated before; what failed before is tried again.

        Raises:
            InvalidRequest: one is no whole number of cents, out of its bounds, or no method is stored.
        """
        _check(threshold, amount, month_limit)
        async with self._database.transaction() as session:
            customer = select(PaymentCustomer).where(PaymentCustomer.organization == organization).with_for_update()
            if all(one.default_method is None for one in await session.scalars(customer)):
                raise InvalidRequest("No payment method is stored. Set one up first.")
            row = await session.get(AutomaticTopUp, organization, with_for_update=True)
            now_ms = await self._after_all_bought(session, organization)
            before = {} if row is None else _details(row)
            if row is None:
                row = AutomaticTopUp(organization=organization, bucket=bucket_of(organization))
                session.add(row)
            row.threshold, row.amount, row.month_limit = threshold, amount, month_limit
            row.changed_at_ms, row.retry_at_ms = now_ms, 0
            self._audit(
                *(session, organization, actor, "automatic_top_up.set", organization),
                at=now_ms // 1000,
                details=_details(row),
                before=before,
            )
            await session.flush()
            return await _with_refusal(session, row)

    async def _after_all_bought(self, session: AsyncSession, organization: OrganizationId) -> int:
        """Return what time it is, and not before what was bought, whose time another machine's clock gave."""
        last_ms = await session.scalar(select(func.max(Payment.created_at_ms)).where(bought_by_itself(organization)))
        return max(self._clock.now_ms(), 0 if last_ms is None else last_ms + 1)

    async def stop(self, organization: OrganizationId, *, actor: ApiKeyId) -> None:
        """Buy nothing by itself any more; what is under way ends as it would. `NotFound` where nothing is stated."""
        async with self._database.transaction() as session:
            row = await _stated(session, organization, lock=True)
            await session.delete(row)
            self._audit(
                *(session, organization, actor, "automatic_top_up.deleted", organization),
                at=self._clock.now_ms() // 1000,
                details={},
                before=_details(row),
            )


def bought_by_itself(organization: OrganizationId | None = None) -> ColumnElement[bool]:
    """Tell of a payment of `organization`; without one, of that of an `AutomaticTopUp`."""
    owner = AutomaticTopUp.organization if organization is None else organization
    return and_(Payment.organization == owner, Payment.idempotency_key.startswith(KEYS, autoescape=True))


def is_refused() -> ColumnElement[bool]:
    """Tell of a payment that it took no money, and neither the method nor what is stated was changed since."""
    other_method = exists().where(
        PaymentCustomer.organization == Payment.organization,
        PaymentCustomer.provider == Payment.provider,
        PaymentCustomer.method_at_ms > Payment.created_at_ms,
    )
    return and_(
        Payment.state.in_([FAILED, CANCELLED]), Payment.created_at_ms >= AutomaticTopUp.changed_at_ms, ~other_method
    )


async def _stated(session: AsyncSession, organization: OrganizationId, *, lock: bool = False) -> AutomaticTopUp:
    found = await session.get(AutomaticTopUp, organization, with_for_update=lock)
    if found is None:
        raise NotFound("No automatic top-up is set.")
    return found


async def _with_refusal(session: AsyncSession, row: AutomaticTopUp) -> StatedTopUp:
    refused = (
        select(func.max(Payment.failure_code))
        .join(AutomaticTopUp, bought_by_itself())
        .where(AutomaticTopUp.organization == row.organization, is_refused())
    )
    code = await session.scalar(refused)
    return StatedTopUp(
        OrganizationId(row.organization),
        threshold=NanoDollars(row.threshold),
        amount=NanoDollars(row.amount),
        month_limit=NanoDollars(row.month_limit),
        changed_at_ms=row.changed_at_ms,
        failure_code="" if code is None else code or CANCELLED,
    )


def _details(row: AutomaticTopUp) -> dict[str, object]:
    return {"threshold": row.threshold, "amount": row.amount, "month_limit": row.month_limit}


def _check(threshold: NanoDollars, amount: NanoDollars, month_limit: NanoDollars) -> None:
    check_amount(amount)
    if not 0 < threshold <= MOST or threshold % CENT:
        message = "The threshold is whole cents, above 0 and up to 100000 dollars."
        raise InvalidRequest(message, param="threshold_dollars")
    if not amount <= month_limit <= 100 * MOST or month_limit % CENT:
        message = "The month's limit is whole cents, at least one top-up and up to 10000000 dollars."
        raise InvalidRequest(message, param="month_limit_dollars")
