"""Stage 2: which model, at which price, and how many tokens the request may use."""

from collections.abc import Sequence

import msgspec

from tokenyard.core.errors import ContextLengthExceeded, InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.core.models import ModelTask, ResolvedModel
from tokenyard.core.principal import Principal
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.elsewhere.taken import check_taken
from tokenyard.gateway.endpoints.body import PaidBody
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


async def resolve(
    endpoint: Endpoint, body: PaidBody, principal: Principal, models: ModelResolver, counter: TokenCounter
) -> ResolvedRequest:
    """Find the model and make sure that it can do what is asked, and that it may fit the model's context.

    Raises:
        ModelNotFound: no such model for this organization.
        PermissionDenied: the plan, the project or the key does not allow the model.
        InvalidRequest: the model cannot do this.
        ContextLengthExceeded: prompt and completion cannot fit.
    """
    model = await models.resolve(principal.organization, body.model)
    principal.check_model(model.name)
    base = model.base
    check_task(endpoint.path, endpoint.body.task, model)
    body.check_model(base)
    if base.server is not None:
        check_taken(endpoint, body, base, base.server)
    prompts = body.prompts(base)
    bounds = tuple(prompt.bound for prompt in prompts)
    wanted = base.default_max_tokens if body.wanted_tokens is None else body.wanted_tokens
    request = ResolvedRequest(endpoint, body, model, principal.organization, bounds, wanted, exact=False)
    if request.fits:
        return request
    fewest = await counter.fewest(prompts, base)
    if fewest is not None:
        _fitted(_with(request, fewest))
    elif body.choices:
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
    return request if request.fits else _fitted(await counted(request, counter) or request)


async def counted(request: ResolvedRequest, counter: TokenCounter) -> ResolvedRequest | None:
    """Return the request with counted prompts, or None where that would tell nothing new."""
    if request.exact:
        return None
    base = request.model.base
    counts = await counter.count(request.organization, request.body.prompts(base), base)
    return None if counts is None else msgspec.structs.replace(request, prompts=tuple(counts), exact=True)


async def least(request: ResolvedRequest, counter: TokenCounter) -> ResolvedRequest | None:
    """Return the request with the fewest tokens that counting may find, or None where counting tells nothing new."""
    base = request.model.base
    fewest = None if request.exact else await counter.fewest(request.body.prompts(base), base)
    return None if fewest is None else _with(request, fewest)


def check_task(path: str, task: ModelTask, model: ResolvedModel) -> None:
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
