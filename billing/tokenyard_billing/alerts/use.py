"""How much of its budgets an organization has used in a month, and at which percents that is told. Without I/O."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tokenyard.core.budgets import AlertRules

WALLET, MONTHLY_LIMIT = "wallet", "monthly_limit"


class BudgetUse(NamedTuple):
    """`used` of `total` nano-dollars of one budget; `scope` is whose."""

    budget: str
    scope: str
    used: int
    total: int


class ReachedPercent(NamedTuple):
    use: BudgetUse
    percent: int


def budgets_in_use(
    organization: str, spending: Mapping[str, int], rules: AlertRules, *, available: int
) -> list[BudgetUse]:
    """Return what is used of the wallet and of each scope's monthly limit.

    `spending` is the month's, by scope: charged and set aside. The wallet's total is what it had in the month: what is
    left, `available`, and what was spent.
    """
    used = spending.get(organization, 0)
    limits = rules.monthly_limits.items()
    of_limits = [BudgetUse(MONTHLY_LIMIT, scope, spending.get(scope, 0), limit) for scope, limit in limits]
    return [BudgetUse(WALLET, organization, used, available + used), *of_limits]


def reached(uses: Iterable[BudgetUse], percents: Iterable[int]) -> list[ReachedPercent]:
    """Return each percent that a budget's use is at or above; one that was not used at all has reached none."""
    steps = sorted(set(percents))
    return [
        ReachedPercent(use, percent)
        for use in uses
        for percent in steps
        if use.used > 0 and use.used * 100 >= use.total * percent
    ]
