"""Alerts as the API shows them."""

from typing import Annotated, Literal

from tokenyard.web.pages import Identified
from tokenyard_billing.views import Dollars, View, of


class BudgetAlertView(View, Identified):
    """`percent` of a budget was used for the first time in a month; `scope` is whose budget it is."""

    object: Literal["budget_alert"] = "budget_alert"
    organization: str
    budget: Literal["wallet", "monthly_limit"]
    scope: str
    month: str
    percent: int
    used: int
    used_dollars: Annotated[Dollars, of("used")]
    total: int
    total_dollars: Annotated[Dollars, of("total")]
    at_ms: int
