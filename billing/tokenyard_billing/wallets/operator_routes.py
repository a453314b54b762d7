"""Credit and balances for operators."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import random_text
from tokenyard.core.money import NanoDollars
from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page
from tokenyard.web.request_guard import NO_NUL
from tokenyard_billing.ports import OrganizationLookup
from tokenyard_billing.views import IdempotencyKey, ListSize, amount_of
from tokenyard_billing.wallets.operator_store import WalletOperatorStore
from tokenyard_billing.wallets.store import Wallet
from tokenyard_billing.wallets.views import BalanceView, GrantView


class CreditBody(BaseModel, extra="forbid", coerce_numbers_to_str=True):
    """`amount_dollars` as text or number, or `amount` in nano-dollars: one of the two."""

    amount_dollars: str | None = None
    amount: Annotated[int | None, Field(strict=True)] = None
    reason: str = Field(min_length=1, max_length=500, pattern=NO_NUL)
    idempotency_key: IdempotencyKey | None = None

    def nano_dollars(self) -> NanoDollars:
        """Return the amount; none, two, or one finer than a nano-dollar raise `InvalidRequest`."""
        if (self.amount_dollars is None) == (self.amount is None):
            raise InvalidRequest("Give either amount_dollars or amount (nano-dollars).", param="amount_dollars")
        if self.amount is not None:
            return NanoDollars(self.amount)
        return amount_of(self.amount_dollars or "", "amount_dollars")


def router(find: OrganizationLookup, wallet: Wallet, store: WalletOperatorStore) -> APIRouter:
    """Return the routes; `{organization}` is an id or a slug."""
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.get("/balances")
    async def balances(_operator: CurrentOperator, after: After = None, limit: ListSize = 100) -> Page[BalanceView]:
        """List balances by organization id; who never had credit or usage is not among them."""
        found = await store.balances(after, limit + 1)
        return Page[BalanceView].of([BalanceView.model_validate(one) for one in found], limit)

    @routes.get("/organizations/{organization}/balance")
    async def balance(_operator: CurrentOperator, organization: str) -> BalanceView:
        return BalanceView.model_validate(await wallet.balance(await find(organization)))

    @routes.post("/organizations/{organization}/credits")
    async def grant(operator: CurrentOperator, organization: str, body: CreditBody) -> GrantView:
        """Grant credit; with an idempotency key, once however often it is sent."""
        granted = await wallet.grant(
            await find(organization),
            body.nano_dollars(),
            reason=body.reason,
            actor=operator.key,
            idempotency_key=body.idempotency_key or f"once_{random_text()}",
        )
        return GrantView.model_validate(granted)

    @routes.get("/organizations/{organization}/credits")
    async def grants(
        _operator: CurrentOperator, organization: str, after: After = None, limit: ListSize = 100
    ) -> Page[GrantView]:
        owner = await find(organization)
        found = await wallet.grants(owner, after=after, limit=limit + 1)
        return Page[GrantView].of([GrantView.model_validate(one) for one in found], limit)

    return routes
