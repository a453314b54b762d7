"""Stage 2: which model, at which price, and how many tokens the request may use."""

from collections.abc import Sequence

import msgspec

from tokenyard.core.errors import ContextLengthExceeded, InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.core.models import ModelTask, ResolvedModel
from tokenyard.core.principal import Principal
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.elsewhere.taken import check_taken, check_tier
from tokenyard.gateway.endpoints.body import PaidBody
from tokenyard.gateway.endpoints.invalid_body import unsupported
from tokenyard.gateway.endpoints.table import Endpoint
from tokenyard.gateway.ports import ModelResolver

_USES = {
    ModelTask.CHAT: "it answers in text, at /v1/chat/completions",
    ModelTask.EMBEDDING: "it makes embeddings, at /v1/embeddings",
}


class ResolvedRequest(msgspec.Struct, frozen=True):
    """A request with its model and its worst case.

    `prompts` are the tokens that each prompt can have at most, and `exact` says that they were counted;
    `max_tokens` is what each choice may produce.
    """

    endpoint: Endpoint
    body: PaidBody
    model: ResolvedModel
    organization: OrganizationId
    prompts: tuple[int, ...]
    max_tokens: int
    exact: bool

    @property
    def prompt_tokens(self) -> int:
        return sum(self.prompts)

    @property
    def completion_tokens(self) -> int:
        # For 0, which asks for the echo alone, the engine makes one token all the same.
        return len(self.prompts) * self.body.choices * max(1, self.max_tokens)

    @property
    def generated_tokens(self) -> int:
        """How many tokens may come after each prompt."""
        return max(1, self.max_tokens) if self.body.choices else 0

    @property
    def fits(self) -> bool:
        most = self.body.max_prompt_tokens
        within = max(self.prompts) + self.generated_tokens <= self.model.base.context_length
        return within and (most is None or self.prompt_tokens <= most)


async def model_for(path: str, body: PaidBody, principal: Principal, models: ModelResolver) -> ResolvedModel:
    """Find the model that `body` asks for at `path`, and make sure that the caller may ask it and that it can do it.

    Raises:
        ModelNotFound: no such model for this organization.
        PermissionDenied: the plan, the project or the key does not allow the model.
        InvalidRequest: the model cannot do this.
    """
    model = await models.resolve(principal.organization, body.model)
    principal.check_model(model.name)
    _check_task(path, body.task, model)
    body.check_model(model.base)
    return model


async def resolve(
    endpoint: Endpoint, body: PaidBody, principal: Principal, models: ModelResolver, counter: TokenCounter
) -> ResolvedRequest:
    """Find the model and make sure that it can do what is asked, and that it may fit the model's context.

    Raises what `model_for` does, and `ContextLengthExceeded` where prompt and completion cannot fit.
    """
    model = await model_for(endpoint.path, body, principal, models)
    base = model.base
    if base.server is not None:
        check_tier(body)
        check_taken(endpoint, body, base, base.server)
    prompts = body.prompts(base)
    bounds = tuple(prompt.bound for prompt in prompts)
    wanted = base.default_max_tokens if body.wanted_tokens is None else body.wanted_tokens
    request = ResolvedRequest(endpoint, body, model, principal.organization, bounds, wanted, exact=False)
    if request.fits:
        return request
    if parts := body.parts(base):
        prompts = parts[-1:]  # what stays is the least that the model is made to read
    fewest = await counter.fewest(prompts, base)
    if fewest is not None:
        _fitted(_with(request, fewest))
    elif body.choices:
        if parts:
            raise unsupported("truncation", "the tokens of this model cannot be counted here.")
        return _fitted(request)
    # More than the context holds is never used, whatever is counted; where nothing is generated the engine refuses a
    # longer prompt before it computes any.
    return _with(request, [min(bound, base.context_length) for bound in bounds])


async def fitted(request: ResolvedRequest, counter: TokenCounter) -> ResolvedRequest:
    """Return the request as it fits the context, counted where its bound does not tell.

    Raises:
        ContextLengthExceeded: prompt and completion do not fit.
        RateLimited: too many prompts of the organization are being counted.
        Unavailable: too many of all are.
    """
    if request.fits:
        return request
    known = await _truncated(request, counter) if request.body.parts(request.model.base) else None
    return _fitted(known or await counted(request, counter) or request)


async def counted(request: ResolvedRequest, counter: TokenCounter) -> ResolvedRequest | None:
    """Return the request with counted prompts, or None where that would tell nothing new."""
    if request.exact:
        return None
    base = request.model.base
    counts = await counter.count(request.organization, request.body.prompts(base), base)
    return None if counts is None else msgspec.structs.replace(request, prompts=tuple(counts), exact=True)


async def count_input(
    path: str, body: PaidBody, principal: Principal, models: ModelResolver, counter: TokenCounter
) -> int:
    """Return how many tokens a model would be made to read, for free.

    Raises what `model_for` does, and as `TokenCounter.count` does.
    """
    model = await model_for(path, body, principal, models)
    base = model.base
    parts = body.parts(base)
    counts = await counter.count(principal.organization, parts or body.prompts(base), base)
    if counts is None:
        raise InvalidRequest("The tokens of this model cannot be counted here.", param="model")
    return sum(counts[_left_out(counts, base.context_length - base.default_max_tokens) if parts else 0 :])


async def _truncated(request: ResolvedRequest, counter: TokenCounter) -> ResolvedRequest | None:
    """Leave out the oldest of the prompt until it has room; None where it cannot be counted."""
    base = request.model.base
    counts = await counter.count(request.organization, request.body.parts(base), base)
    if counts is None:
        return None
    left_out = _left_out(counts, base.context_length - request.generated_tokens)
    request.body.leave_out(left_out)
    return msgspec.structs.replace(request, prompts=(sum(counts[left_out:]),), exact=True)


def _left_out(parts: Sequence[int], room: int) -> int:
    """Return how many of the first parts have to go where there is `room` for so many tokens; the last one stays."""
    tokens = sum(parts)
    for place, part in enumerate(parts[:-1]):
        if tokens <= room:
            return place
        tokens -= part
    return len(parts) - 1


async def least(request: ResolvedRequest, counter: TokenCounter) -> ResolvedRequest | None:
    """Return the request with the fewest tokens that counting may find, or None where counting tells nothing new."""
    base = request.model.base
    fewest = None if request.exact else await counter.fewest(request.body.prompts(base), base)
    return None if fewest is None else _with(request, fewest)


def _check_task(path: str, task: ModelTask, model: ResolvedModel) -> None:
    """Refuse a model that is for other endpoints than `path`, which is for `task`; raises `InvalidRequest`."""
    if model.base.task is not task:
        message = f"The model `{model.name}` is not for {path}: {_USES[model.base.task]}."
        raise InvalidRequest(message, param="model", code="model_not_supported")


def _with(request: ResolvedRequest, prompts: Sequence[int]) -> ResolvedRequest:
    return msgspec.structs.replace(request, prompts=tuple(prompts))


def _fitted(request: ResolvedRequest) -> ResolvedRequest:
    """Return the request as it fits the context, for which a default of `max_tokens` gives way."""
    longest = max(request.prompts)
    room = request.model.base.context_length - longest
    wanted = min(request.max_tokens, room) if request.body.wanted_tokens is None else request.max_tokens
    if wanted > room or room < min(1, request.body.choices):
        raise _too_long(request, longest)
    most = request.body.max_prompt_tokens
    if most is not None and request.prompt_tokens > most:
        message = f"Requested {request.prompt_tokens} tokens, max {most} tokens per request."
        raise InvalidRequest(message, param=request.endpoint.input, code="max_tokens_per_request")
    return msgspec.structs.replace(request, max_tokens=wanted)


def _too_long(request: ResolvedRequest, prompt: int) -> ContextLengthExceeded:
    part, wanted = request.endpoint.input, request.body.wanted_tokens
    context = request.model.base.context_length
    number = str(prompt) if request.exact else f"at least {prompt}"
    if prompt >= context or wanted is None:
        told = f"your {part} resulted in {number} tokens. Please reduce the length of the {part}."
    else:
        told = (
            f"you requested {prompt + wanted} tokens ({number} in the {part}, {wanted} in the completion). "
            f"Please reduce the length of the {part} or completion."
        )
    message = f"This model's maximum context length is {context} tokens. However, {told}"
    return ContextLengthExceeded(message, param=part)
