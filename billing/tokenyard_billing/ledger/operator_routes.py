"""The trial balance, for operators."""

from fastapi import APIRouter

from tokenyard.web.auth import CurrentOperator
from tokenyard_billing.ledger.operator_store import BooksOperatorStore
from tokenyard_billing.ledger.views import AccountView, TrialBalanceView


def router(store: BooksOperatorStore) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.get("/books")
    async def trial_balance(_operator: CurrentOperator) -> TrialBalanceView:
        """Sum every account of the journal over all organizations."""
        found = await store.trial_balance()
        accounts = [AccountView.model_validate({"name": name.value, "amount": sum_}) for name, sum_ in found.items()]
        return TrialBalanceView(accounts=accounts, total=sum(found.values()))

    return routes
