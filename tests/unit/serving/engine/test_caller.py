"""Who a sequence is scheduled for: each service tier of an organization has its own turn and weight."""

from types import SimpleNamespace

import pytest

from support.billing.stand import claims
from tokenyard.core.ids import OrganizationId
from tokenyard_deployments.serving.engine.scheduling.caller import Caller, take_caller, tell_caller


@pytest.mark.parametrize(
    ("tier", "told"), [("default", "org_a"), ("flex", "org_a/flex"), ("priority", "org_a/priority")]
)
def test_a_tier_is_served_as_if_it_were_an_organization_of_its_own(tier: str, told: str) -> None:
    request = SimpleNamespace(trace_headers={"traceparent": "x"}, cache_salt="salt", lora_request=None)
    tell_caller(request, claims("req_1", organization=OrganizationId("org_a"), weight=3, tier=tier))
    assert take_caller(request) == Caller(told, 3, None)
    assert request.trace_headers == {"traceparent": "x"}
