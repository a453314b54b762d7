"""Stage 3: hold the worst case on every limit and budget, in one script call."""

from tokenyard.core.admission import AdmissionRequest, Admitted
from tokenyard.core.budgets import budgets_of
from tokenyard.core.clock import Clock
from tokenyard.core.errors import QuotaExceeded, RateLimited
from tokenyard.core.ids import RequestId, attempt_id
from tokenyard.core.price import worst_case_cost
from tokenyard.core.principal import Principal
from tokenyard.core.usage import MeterClaims
from tokenyard.gateway.endpoints.prompt_size import TokenCounter
from tokenyard.gateway.path.resolve import Order, counted
from tokenyard.gateway.ports import Admission


class Gate:
    """Lets calls in."""

    def __init__(self, admission: Admission, counter: TokenCounter, clock: Clock) -> None:
        self._admission = admission
        self._counter = counter
        self._clock = clock

    async def admit(self, order: Order, principal: Principal, request: RequestId) -> Admitted:
        """Take the hold; where the quick bound of the prompt is refused, count exactly and try once more.

        Raises:
            RateLimited, QuotaExceeded, Unauthenticated, Unavailable
        """
        try:
            return await self._admission.admit(admission_request(order, principal, request, self._clock))
        except (RateLimited, QuotaExceeded) as refusal:
            if isinstance(refusal, RateLimited) and refusal.type != "tokens":
                raise
            smaller = await counted(order, self._counter)
            if smaller is None or smaller.prompt_tokens >= order.prompt_tokens:
                raise
            return await self._admission.admit(admission_request(smaller, principal, request, self._clock))


def admission_request(order: Order, principal: Principal, request: RequestId, clock: Clock) -> AdmissionRequest:
    """Return what has to be held for `order`."""
    model = order.model
    claims = MeterClaims(
        attempt=attempt_id(request, 1),
        organization=principal.organization,
        project=principal.project,
        key=principal.key,
        model=model.name,
        base_model=model.base.id,
        price=model.price.id,
        admitted_at_ms=0,
        endpoint=order.call.endpoint.path,
        weight=principal.weight,
        adapter=model.adapter,
    )
    amount = worst_case_cost(model.price, prompt_tokens=order.prompt_tokens, completion_tokens=order.completion_tokens)
    tokens = order.prompt_tokens + order.completion_tokens
    return AdmissionRequest(principal, claims, tokens, amount, budgets_of(principal, clock.now_ms()))
