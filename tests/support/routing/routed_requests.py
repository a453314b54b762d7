"""Requests as they are routed, and the replicas that they may go to."""

import msgspec

from support.fakes.gateway_ports import BASE
from tokenyard.core.ids import OrganizationId
from tokenyard.core.replica import Replica
from tokenyard.gateway.path.route import ReplicaRouter, Route, RoutedRequest

SLOTS = 32


def routed(
    prompt: str = "Hello",
    *,
    organization: str = "org_test",
    adapter: str | None = None,
    sequences: int = 1,
    prompt_tokens: int | None = None,
) -> RoutedRequest:
    """Return a chat of one message; its prompt has a token for four bytes, unless it is said."""
    body = msgspec.json.encode({"temperature": 0, "messages": [{"role": "user", "content": prompt}], "model": "m"})
    return RoutedRequest(
        organization=OrganizationId(organization),
        salt=f"salt of {organization}",
        base_model=BASE.id,
        adapter=adapter,
        body=body,
        sequences=sequences,
        prompt_tokens=len(prompt) // 4 if prompt_tokens is None else prompt_tokens,
    )


def replica(name: str, *, adapters: tuple[str, ...] = (), running: int = 0, waiting_tokens: int = 0) -> Replica:
    return Replica(name, BASE.id, f"http://{name}", adapters, running, 0, SLOTS, waiting_tokens)


def way(router: ReplicaRouter, request: RoutedRequest, *tried: str) -> Route:
    """Return the way that a request is sent, where there is one."""
    found = router.pick(request, tried)
    assert found is not None
    return found
