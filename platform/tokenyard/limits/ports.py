"""What limits needs from others."""

from typing import Protocol

from tokenyard.core.admission import BudgetState
from tokenyard.core.ids import OrganizationId


class BudgetSource(Protocol):
    """Knows budgets as SQL has them."""

    async def load(self, organization: OrganizationId, name: str) -> BudgetState | None:
        """Return the budget called `name`, or None where there is none such."""
        ...
