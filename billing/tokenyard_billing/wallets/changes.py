"""What transactions change of budgets: written down in their commit, then carried to the live budgets."""

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.budgets import BudgetUpdate
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.transactional_outbox import OutboxMessage, write_message
from tokenyard_billing.ports import BudgetHolds, LiveBudgets
from tokenyard_billing.wallets.budgets import SqlBudgets

TOPIC = "budgets"


class BudgetChanges(msgspec.Struct):
    """What one transaction changed of an organization's budgets.

    `charged`: names of budgets, separated by spaces -> the charge keys that are in SQL now and pending no more.
    `decided`: the tokens really used by requests that were settled, or expired, without anyone knowing them.
    `released`: the charge keys of holds that the ledger has taken over, or that came to nothing.
    """

    organization: OrganizationId
    charged: dict[str, list[str]] = msgspec.field(default_factory=dict)
    decided: dict[str, int] = msgspec.field(default_factory=dict)
    released: list[str] = msgspec.field(default_factory=list)

    def add(self, budgets: Iterable[str], charge_key: str | None = None) -> None:
        """Note that `budgets` have new ledger figures; `charge_key` is pending on them no more."""
        keys = self.charged.setdefault(" ".join(budgets), [])
        if charge_key is not None:
            keys.append(charge_key)

    def updates(self) -> dict[str, set[str]]:
        """Return the charge keys by budget."""
        found: dict[str, set[str]] = {}
        for names, keys in self.charged.items():
            for name in names.split():
                found.setdefault(name, set()).update(keys)
        return found


_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[list[BudgetChanges]] = msgspec.json.Decoder(list[BudgetChanges])


async def write_changes(session: AsyncSession, changes: Sequence[BudgetChanges], at_ms: int) -> list[OutboxMessage]:
    """Write the message in the transaction that makes the changes; none where there are none."""
    return [await write_message(session, TOPIC, _ENCODER.encode(changes), at_ms)] if changes else []


def read_changes(payload: str) -> list[BudgetChanges]:
    """Read what a message of `TOPIC` says."""
    return _DECODER.decode(payload)


class BudgetCarrier:
    """The outbox's handler: brings the live budgets up to SQL."""

    def __init__(self, budgets: SqlBudgets, live: LiveBudgets, holds: BudgetHolds) -> None:
        self._budgets = budgets
        self._live = live
        self._holds = holds

    async def carry(self, payloads: Sequence[str]) -> None:
        """First the ledger figures, then what they make superfluous: in between money counts twice, never not at all.

        Raises:
            redis.RedisError: not done, or not known to be: carry again.
        """
        changes = [change for payload in payloads for change in read_changes(payload)]
        keys: dict[OrganizationId, dict[str, set[str]]] = {}
        for change in changes:
            of_organization = keys.setdefault(change.organization, {})
            for name, charge_keys in change.updates().items():
                of_organization.setdefault(name, set()).update(charge_keys)
        states = await self._budgets.states(keys)
        await self._live.apply(
            (organization, [BudgetUpdate(name, states[organization].get(name), done) for name, done in found.items()])
            for organization, found in keys.items()
        )
        await self._live.decide((change.organization, change.decided) for change in changes if change.decided)
        for change in changes:
            for charge_key in change.released:
                await self._holds.release(change.organization, charge_key)
