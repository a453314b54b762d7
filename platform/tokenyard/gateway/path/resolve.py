"""Stage 2: which model, at which price, and how many tokens the call may use."""

import msgspec

from tokenyard.core.catalog import BaseModel, ResolvedModel
from tokenyard.core.errors import ContextLengthExceeded
from tokenyard.core.principal import Principal
from tokenyard.gateway.endpoints.call import Call
from tokenyard.gateway.endpoints.prompt_size import TokenCounter, prompt_bounds
from tokenyard.gateway.endpoints.table import CHAT
from tokenyard.gateway.ports import ModelCatalog


class Order(msgspec.Struct, frozen=True):
    """A call with its model and its worst case.

    `prompts` are the tokens that each prompt can have at most, and `exact` says that they were counted;
    `max_tokens` is what each choice may produce.
    """

    call: Call
    model: ResolvedModel
    prompts: tuple[int, ...]
    max_tokens: int
    exact: bool

    @property
    def prompt_tokens(self) -> int:
        return sum(self.prompts)

    @property
    def completion_tokens(self) -> int:
        # For 0, which asks for the echo alone, the engine makes one token all the same.
        return len(self.prompts) * self.call.choices * max(1, self.max_tokens)


async def resolve(call: Call, principal: Principal, catalog: ModelCatalog, counter: TokenCounter) -> Order:
    """Find the model and make sure that the call fits its context.

    Raises:
        ModelNotFound: no such model for this organization.
        ContextLengthExceeded: prompt and completion do not fit, also when counted exactly.
    """
    model = await catalog.resolve(principal.organization, call.model)
    bounds = prompt_bounds(call, model.base)
    wanted = call.max_tokens if call.max_tokens is not None else model.base.default_max_tokens
    if max(bounds) + wanted <= model.base.context_length:
        return Order(call, model, tuple(bounds), wanted, exact=False)
    counted = await counter.count(call, model.base)
    return _fitted(call, model, bounds if counted is None else counted, wanted, exact=counted is not None)


async def counted(order: Order, counter: TokenCounter) -> Order | None:
    """Return the order with counted prompts, or None where that would tell nothing new."""
    if order.exact:
        return None
    counts = await counter.count(order.call, order.model.base)
    return None if counts is None else msgspec.structs.replace(order, prompts=tuple(counts), exact=True)


def _fitted(call: Call, model: ResolvedModel, prompts: list[int], wanted: int, *, exact: bool) -> Order:
    room = model.base.context_length - max(prompts)
    if call.max_tokens is None:
        wanted = min(wanted, room)
    if wanted > room or room < 1:
        raise _too_long(call, model.base, max(prompts), wanted)
    return Order(call, model, tuple(prompts), wanted, exact=exact)


def _too_long(call: Call, base: BaseModel, prompt: int, wanted: int) -> ContextLengthExceeded:
    part = "messages" if call.endpoint is CHAT else "prompt"
    limit = f"This model's maximum context length is {base.context_length} tokens."
    if prompt >= base.context_length or call.max_tokens is None:
        asked = f"However, your {part} resulted in {prompt} tokens. Please reduce the length of the {part}."
    else:
        asked = (
            f"However, you requested {prompt + wanted} tokens ({prompt} in the {part}, {wanted} in the completion). "
            f"Please reduce the length of the {part} or completion."
        )
    return ContextLengthExceeded(f"{limit} {asked}", param=part)
