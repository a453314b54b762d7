"""What the gateway asks for before a request may cost anything, and what it gets back."""

import msgspec

from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Principal
from tokenyard.core.usage import MeterClaims


class AdmissionRequest(msgspec.Struct, frozen=True):
    """One request's worst case: `tokens` (prompt and completion) and `amount` are held until it is settled.

    `claims` come without `admitted_at_ms` (0) and without `budgets`; `budgets` are the names to hold `amount` on.
    """

    principal: Principal
    claims: MeterClaims
    tokens: int
    amount: NanoDollars
    budgets: tuple[str, ...]


class Admitted(msgspec.Struct, frozen=True):
    """The hold stands. `claims` are complete; `headers` are OpenAI's `x-ratelimit-*`, for the reply."""

    claims: MeterClaims
    headers: dict[str, str]
