"""Who is calling."""

from enum import StrEnum

import msgspec

from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.limits import ScopedLimits


class Role(StrEnum):
    """What a key is for. An operator key belongs to no organization and reaches only `/admin` routes."""

    TENANT = "tenant"
    OPERATOR = "operator"


class Principal(msgspec.Struct, frozen=True):
    """A tenant's authenticated key. `limits` go from the narrowest scope to the widest."""

    organization: OrganizationId
    project: ProjectId
    key: ApiKeyId
    key_version: int
    limits: tuple[ScopedLimits, ...] = ()
    weight: int = 1


class Operator(msgspec.Struct, frozen=True):
    """An authenticated operator key."""

    key: ApiKeyId
