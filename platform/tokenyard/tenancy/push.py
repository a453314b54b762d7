"""Makes a committed change known: to this process at once, and to all others within a second."""

from collections.abc import Sequence

from tokenyard.storage.transactional_outbox import OutboxMessage, TransactionalOutbox
from tokenyard.tenancy.authentication.authenticator import KeyAuthenticator
from tokenyard.tenancy.changes import OperatorKeyEnded, OrganizationRevised, PlanRevised, read_change


class TenancyPush:
    def __init__(self, authenticator: KeyAuthenticator, outbox: TransactionalOutbox) -> None:
        self._authenticator = authenticator
        self._outbox = outbox

    async def changed(self, messages: Sequence[OutboxMessage]) -> None:
        """Take what the stores wrote to the outbox. While Redis is away only this process knows of it."""
        for message in messages:
            match read_change(message.payload):
                case OrganizationRevised(organization):
                    await self._authenticator.organization_changed(organization)
                case PlanRevised(plan):
                    await self._authenticator.plan_changed(plan)
                case OperatorKeyEnded(key):
                    await self._authenticator.operator_key_ended(key)
        await self._outbox.try_to_carry(messages)
