"""What stands for a key is as good as the key for inference, no longer than it, and for nothing else."""

import pytest

from support.fakes.clock import FrozenClock
from support.tenancy_stand import Tenancy
from tokenyard.core.errors import Unauthenticated
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.principal import KeyScope
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.tenancy.authentication.authenticator import KeyAuthenticator
from tokenyard.tenancy.authentication.lent_keys import LentKeys

SECRET = b"s" * 32


class Lender:
    """A worker that lends keys, and a gateway that takes them."""

    def __init__(self, tenancy: Tenancy) -> None:
        self._tenancy = tenancy
        self.keys = LentKeys(SECRET, tenancy.clock)
        self.gateway = KeyAuthenticator(
            tenancy.operator_store, tenancy.hasher, tenancy.clock, lent=self.keys, now=tenancy.clock
        )
        tenancy.authenticators.append(self.gateway)

    async def lend(self, key: ApiKeyId, keys: LentKeys | None = None) -> str:
        found = await self._tenancy.operator_store.key_hash(key)
        assert found is not None
        return (keys or self.keys).lend(found, for_s=60)


@pytest.fixture
def lender(tenancy: Tenancy) -> Lender:
    return Lender(tenancy)


async def test_it_is_the_key_but_for_inference_alone(tenancy: Tenancy, lender: Lender) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    holder = await lender.gateway.tenant(secret)
    borrower = await lender.gateway.tenant(await lender.lend(holder.key))
    assert (borrower.organization, borrower.project, borrower.key) == (organization.id, holder.project, holder.key)
    assert (borrower.limits, borrower.scopes) == (holder.limits, frozenset([KeyScope.INFERENCE]))
    assert await lender.gateway.fresh_tenant(await lender.lend(holder.key)) == borrower


async def test_it_ends_by_itself_and_with_the_key(tenancy: Tenancy, lender: Lender) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    key = (await lender.gateway.tenant(secret)).key
    bearer = await lender.lend(key)
    tenancy.clock.advance(61)
    with pytest.raises(Unauthenticated):
        await lender.gateway.tenant(bearer)
    bearer = await lender.lend(key)
    await tenancy.keys.revoke(organization.id, key, actor=BOOTSTRAP)
    with pytest.raises(Unauthenticated):
        await lender.gateway.fresh_tenant(bearer)


async def test_nobody_else_makes_one(tenancy: Tenancy, lender: Lender) -> None:
    _, secret = await tenancy.new_tenant("acme")
    key = (await lender.gateway.tenant(secret)).key
    good = await lender.lend(key)
    other = await lender.lend(key, LentKeys(b"o" * 32, FrozenClock()))
    for forged in (
        other,
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        "ty-lent-",
        "ty-lent-..",
        good + "é",
        good * 9,
    ):
        with pytest.raises(Unauthenticated):
            await lender.gateway.tenant(forged)
    with pytest.raises(Unauthenticated):
        await tenancy.authenticator.tenant(good)  # a process that takes none


async def test_an_operators_key_is_lent_to_nobody(tenancy: Tenancy, lender: Lender) -> None:
    operator = await lender.gateway.operator(tenancy.operator_secret)
    with pytest.raises(Unauthenticated):
        await lender.gateway.tenant(await lender.lend(operator.key))
    assert await tenancy.operator_store.key_hash(ApiKeyId("key_none")) is None
