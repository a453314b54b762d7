"""Tokens x rate. The hold, the charge and the invoice line all come to the same figure, because all are exact."""

import msgspec

from tokenyard.core.money import NanoDollars
from tokenyard.core.price import Price


class RatedLine(msgspec.Struct, frozen=True):
    """`quantity` tokens x `rate` nano-dollars = `amount`. `kind`: input, cached_input, output or training."""

    kind: str
    quantity: int
    rate: NanoDollars

    @property
    def amount(self) -> NanoDollars:
        return NanoDollars(self.quantity * self.rate)


def rated_lines(
    price: Price, *, prompt_tokens: int, cached_tokens: int, completion_tokens: int, trained_tokens: int
) -> tuple[RatedLine, ...]:
    """Split usage into what a bill lists; kinds without tokens are left out."""
    lines = (
        RatedLine("input", prompt_tokens - cached_tokens, price.input),
        RatedLine("cached_input", cached_tokens, price.cached_input),
        RatedLine("output", completion_tokens, price.output),
        RatedLine("training", trained_tokens, price.training),
    )
    return tuple(line for line in lines if line.quantity)
