"""Who used how many tokens."""

import msgspec

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import ApiKeyId, AttemptId, OrganizationId, PriceId, ProjectId

MAX_END_USER_CHARS = 256
MAX_TIER_CHARS = 16
DEFAULT_TIER = "default"
"""The service tier of a request that asks for none."""


class TokenUsage(msgspec.Struct, frozen=True):
    """Tokens of one attempt. `cached_tokens` are part of `prompt_tokens`."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class MeterClaims(msgspec.Struct, frozen=True):
    """Whose request this is: signed by the gateway, carried to the replica, returned in its report.

    `admitted_at_ms` is Redis time in unix milliseconds; it decides period and price.
    `budgets` are the names of the budgets that the request was held on. `server` is the model of a server elsewhere
    that is asked: no replica will report this attempt. Empty: a replica of ours is asked, and reports. `end_user` is
    who of its own users the organization says it is for, at most `MAX_END_USER_CHARS`; empty where it does not say.
    `weight` is that of `tier`, the service tier which decides the price, too.
    """

    attempt: AttemptId
    organization: OrganizationId
    project: ProjectId
    key: ApiKeyId
    model: str
    base_model: str
    price: PriceId
    admitted_at_ms: int
    endpoint: str
    budgets: tuple[str, ...] = ()
    weight: int = 1
    adapter: AdapterRef | None = None
    server: str = ""
    end_user: str = ""
    tier: str = DEFAULT_TIER
