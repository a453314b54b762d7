"""Who is calling, and how much they may use."""

from enum import StrEnum

import msgspec

from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
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


class Role(StrEnum):
    """What a key is for. An operator key belongs to no organization and reaches only `/admin` routes."""

    TENANT = "tenant"
    OPERATOR = "operator"


class Principal(msgspec.Struct, frozen=True):
    """A tenant's authenticated key. `limits` go from the narrowest scope to the widest.

    `revision` is the organization's: it grows with every change that may make an older `Principal` of it wrong.
    """

    organization: OrganizationId
    project: ProjectId
    key: ApiKeyId
    revision: int
    limits: tuple[ScopedLimits, ...] = ()
    weight: int = 1

    @property
    def monthly_limits(self) -> dict[str, NanoDollars]:
        """What each scope that has such a limit may spend in a month, by its id."""
        spends = ((scope.id, scope.limits.monthly_spend) for scope in self.limits)
        return {scope: spend for scope, spend in spends if spend is not None}


class Operator(msgspec.Struct, frozen=True):
    key: ApiKeyId
