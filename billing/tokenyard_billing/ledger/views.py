"""The books as the API shows them."""

from typing import Annotated, Literal

from pydantic import BaseModel

from tokenyard_billing.views import Dollars, View, of


class AccountView(View):
    """The sum of an account over all organizations, in nano-dollars."""

    name: str
    amount: int
    amount_dollars: Annotated[Dollars, of("amount")]


class TrialBalanceView(BaseModel):
    """Every account; `total` is 0 where the books balance."""

    object: Literal["trial_balance"] = "trial_balance"
    currency: Literal["usd"] = "usd"
    accounts: list[AccountView]
    total: int
