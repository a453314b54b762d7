"""When the steps of dunning are due."""

from itertools import pairwise

from sqlalchemy import ColumnElement, and_, false, func, or_

from tokenyard_billing.dunning.tables import Dunning
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.periods import DAY_MS


class DunningSchedule:
    """Days after an invoice was due, in rising order; the last step blocks its organization. None: nothing is dunned.

    Between two steps lie at least the days between them, also where the first comes late: whoever turns dunning on, or
    ends a pause, blocks nobody at once.
    """

    def __init__(self, days: tuple[int, ...]) -> None:
        """Raises `ValueError` where the days do not rise, or begin before the invoice is due."""
        if any(day < 0 for day in days) or any(later <= day for day, later in pairwise(days)):
            raise ValueError("The days of dunning must rise, and begin with 0 or later.")
        self._days = days

    @property
    def steps(self) -> int:
        return len(self._days)

    def is_due(self, now_ms: int) -> ColumnElement[bool]:
        """Tell of rows of `Invoice` outer joined with `Dunning` whether a step is due.

        One that a longer schedule took further is due as before the last step, until it blocks.
        """
        taken = func.coalesce(Dunning.steps, 0)
        steps = [(taken == step, step) for step in range(self.steps)]
        if steps:
            steps.append((and_(taken >= self.steps, Dunning.blocks.is_(False)), self.steps - 1))
        return or_(false(), *(and_(reached, self._is_its_day(step, now_ms)) for reached, step in steps))

    def _is_its_day(self, step: int, now_ms: int) -> ColumnElement[bool]:
        return and_(
            Invoice.due_at_ms <= now_ms - self._days[step] * DAY_MS,
            func.coalesce(Dunning.stepped_at_ms, 0) <= now_ms - self._gap_ms(step),
        )

    def _gap_ms(self, step: int) -> int:
        return (self._days[step] - self._days[step - 1]) * DAY_MS if step else 0
