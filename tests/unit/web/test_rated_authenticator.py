"""An organization may ask the control plane so often, and no other one suffers from it."""

import pytest

from support.fakes.admission_requests import principal
from support.fakes.authenticator import FixedAuthenticator
from support.fakes.clock import FrozenClock
from tokenyard.core.errors import RateLimited
from tokenyard.core.ids import OrganizationId
from tokenyard.web.rated_authenticator import BURST, PER_S, RatedAuthenticator


async def test_each_organization_has_its_own_rate() -> None:
    clock = FrozenClock()
    keys = {"one": principal(), "two": principal(), "other": principal(organization_id=OrganizationId("org_other"))}
    rated = RatedAuthenticator(FixedAuthenticator(keys, "operator"), clock)
    for number in range(BURST):
        await rated.tenant("one" if number % 2 else "two")
    for look_up in (rated.tenant, rated.fresh_tenant):
        with pytest.raises(RateLimited) as refused:
            await look_up("one")
        assert refused.value.headers["retry-after"] == "1"
    assert await rated.tenant("other")
    for _ in range(2 * BURST):
        await rated.operator("operator")
    clock.advance(1)
    for _ in range(PER_S):
        await rated.fresh_tenant("two")
    with pytest.raises(RateLimited):
        await rated.tenant("two")
