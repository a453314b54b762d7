"""Stage 3: hold the worst case on every limit and budget, at the caller's own price, in one script call."""

import msgspec

from tokenyard.core.admission import AdmissionRequest, Admitted
from tokenyard.core.budgets import budgets_of
from tokenyard.core.clock import Clock
from tokenyard.core.errors import QuotaExceeded, RateLimited
from tokenyard.core.ids import RequestId, attempt_id
from tokenyard.core.money import worst_case_cost
from tokenyard.core.principal import Principal
from tokenyard.core.usage import MeterClaims
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.path.resolve import ResolvedRequest, counted, fitted, least
from tokenyard.gateway.ports import AdmissionControl


class AdmissionStage:
    def __init__(self, control: AdmissionControl, counter: TokenCounter, clock: Clock) -> None:
        self._control = control
        self._counter = counter
        self._clock = clock

    async def admit(
        self, request: ResolvedRequest, principal: Principal, request_id: RequestId
    ) -> tuple[ResolvedRequest, Admitted]:
        """Take the hold; where the quick bound of the prompt is refused, count exactly and try once more.

        Nothing is counted for who is over a limit anyway. What is returned has the caller's price.
        A blocked organization raises `QuotaExceeded`.
        """
        principal.check_not_blocked()
        request = _priced(request, principal, self._clock.now_ms())
        try:
            return request, await self._ask(request, principal, request_id)
        except (RateLimited, QuotaExceeded) as refusal:
            if refusal.room is None or not await self._may_fit(request, principal, request_id, refusal):
                raise
            smaller = await counted(request, self._counter)
            if smaller is None or smaller.prompt_tokens >= request.prompt_tokens:
                raise
        smaller = await fitted(smaller, self._counter)
        return smaller, await self._ask(smaller, principal, request_id)

    async def _ask(self, request: ResolvedRequest, principal: Principal, request_id: RequestId) -> Admitted:
        return await self._control.admit(admission_request(request, principal, request_id, self._clock))

    async def _may_fit(
        self,
        request: ResolvedRequest,
        principal: Principal,
        request_id: RequestId,
        refusal: RateLimited | QuotaExceeded,
    ) -> bool:
        smallest = await least(request, self._counter)
        if smallest is None or refusal.room is None:
            return False
        asked = admission_request(smallest, principal, request_id, self._clock)
        of_tokens = refusal.type == "tokens"
        return (asked.tokens if of_tokens else asked.amount) <= refusal.room


def _priced(request: ResolvedRequest, principal: Principal, at_ms: int) -> ResolvedRequest:
    listed = request.model.price
    price = principal.price_of(listed, request.body.tier, at_ms)
    if price is listed:
        return request
    return msgspec.structs.replace(request, model=msgspec.structs.replace(request.model, price=price))


def admission_request(
    request: ResolvedRequest, principal: Principal, request_id: RequestId, clock: Clock
) -> AdmissionRequest:
    """Return what has to be held for `request`."""
    model, prompt, completion = request.model, request.prompt_tokens, request.completion_tokens
    claims = MeterClaims(
        attempt=attempt_id(request_id, 1),
        organization=principal.organization,
        project=principal.project,
        key=principal.key,
        model=model.name,
        base_model=model.base.id,
        price=model.price.id,
        admitted_at_ms=0,
        endpoint=request.endpoint.path,
        weight=principal.weight_of(request.body.tier),
        adapter=model.adapter,
        server="" if model.base.server is None else model.base.id,
        end_user=request.body.end_user,
        tier=request.body.tier,
    )
    amount = worst_case_cost(model.price, prompt_tokens=prompt, completion_tokens=completion)
    budgets = budgets_of(principal.organization, principal.monthly_limits, clock.now_ms())
    return AdmissionRequest(principal.using(model.name), claims, prompt + completion, amount, budgets)
