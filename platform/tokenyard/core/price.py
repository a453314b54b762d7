"""What a token costs. The gateway's hold and the ledger's charge come from the same functions."""

from typing import Protocol

import msgspec

from tokenyard.core.ids import PriceId
from tokenyard.core.money import NanoDollars
from tokenyard.core.usage import TokenUsage


class Price(msgspec.Struct, frozen=True):
    """The rates of one model on one dated rate card, in whole nano-dollars for one token.

    `id` is `<rate card>/<model>` for a base model and `<rate card>/<model>/fine-tuned` for its adapters.
    """

    id: PriceId
    model: str
    input: NanoDollars
    cached_input: NanoDollars
    output: NanoDollars
    training: NanoDollars


class PriceLookup(Protocol):
    """The dated rate cards, in memory (billing)."""

    def price(self, model: str, *, fine_tuned: bool, at_ms: int) -> Price | None:
        """Return what base model `model`, or an adapter of it, costs at `at_ms` (unix ms); None without a price."""
        ...


def inference_cost(price: Price, usage: TokenUsage) -> NanoDollars:
    """Return tokens x rate: exact, because both are whole numbers."""
    fresh = usage.prompt_tokens - usage.cached_tokens
    return NanoDollars(
        fresh * price.input + usage.cached_tokens * price.cached_input + usage.completion_tokens * price.output
    )


def worst_case_cost(price: Price, *, prompt_tokens: int, completion_tokens: int) -> NanoDollars:
    """Return the most that a request can cost: nothing cached, every allowed token produced."""
    dearest_input = max(price.input, price.cached_input)
    return NanoDollars(prompt_tokens * dearest_input + completion_tokens * price.output)


def training_cost(price: Price, trained_tokens: int) -> NanoDollars:
    """Return the cost of training on `trained_tokens` tokens (dataset tokens x epochs)."""
    return NanoDollars(trained_tokens * price.training)
