"""How much a key, a project or an organization may use."""

import msgspec

from tokenyard.core.money import NanoDollars


class Limits(msgspec.Struct, frozen=True):
    """`None` means without limit. Windows roll: at no moment does any window hold more than the limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None
    monthly_spend: NanoDollars | None = None


class ScopedLimits(msgspec.Struct, frozen=True):
    """The limits of one scope; `scope` is `key`, `project` or `organization` and `id` says which."""

    scope: str
    id: str
    limits: Limits
