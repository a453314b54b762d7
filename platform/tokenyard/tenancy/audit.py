"""The audit log as operators and organizations read it, filtered as OpenAI's is."""

import operator
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from fastapi import Request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.tenancy.tables import AuditRow
from tokenyard.tenancy.views import AuditEntry
from tokenyard.web.queries import list_query, list_values

_COLUMNS = {"event_types": AuditRow.action, "actor_ids": AuditRow.actor, "resource_ids": AuditRow.resource}
_Seconds = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_COMPARISONS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
AUDIT_QUERY: dict[str, object] = {
    "parameters": [
        *(list_query(name, {"type": "string"}) for name in _COLUMNS),
        {
            "name": "effective_at",
            "in": "query",
            "description": "Only changes of this time, in unix seconds: `effective_at[gte]=1767225600`.",
            "style": "deepObject",
            "schema": {
                "type": "object",
                "properties": {name: {"type": "integer"} for name in _COMPARISONS},
                "additionalProperties": False,
            },
        },
    ]
}
"""Describes what `audit_filter` reads."""


class AuditFilter(msgspec.Struct, frozen=True):
    """`among` are the values that a list of `_COLUMNS` leaves; `times` unix seconds by comparison."""

    among: Mapping[str, Sequence[str]] = {}
    times: Mapping[str, int] = {}


EVERY_CHANGE = AuditFilter()


def audit_filter(request: Request) -> AuditFilter:
    """Read which changes are asked for: `actor_ids[]=key_1&effective_at[gt]=1767225600`."""
    return AuditFilter({name: values for name in _COLUMNS if (values := list_values(request, name))}, _times(request))


async def read_audit_log(
    session: AsyncSession, organization: OrganizationId | None, wanted: AuditFilter, *, before: int | None, limit: int
) -> list[AuditEntry]:
    """Return changes, of one organization or of all, newest first, older than the one with the id `before`."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
    if organization is not None:
        query = query.where(AuditRow.organization_id == organization)
    if before is not None:
        query = query.where(AuditRow.id < before)
    for name, values in wanted.among.items():
        query = query.where(_COLUMNS[name].in_(values))
    for comparison, seconds in wanted.times.items():
        query = query.where(_COMPARISONS[comparison](AuditRow.at, seconds))
    return [AuditEntry.of(row) for row in await session.scalars(query)]


def _times(request: Request) -> dict[str, int]:
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name.partition("[")[0] == "effective_at":
            found[name.removeprefix("effective_at[").removesuffix("]")] = value
    if not found.keys() <= _COMPARISONS.keys():
        raise InvalidRequest(f"effective_at is compared by one of {', '.join(_COMPARISONS)}.", param="effective_at")
    try:
        return msgspec.convert(found, dict[str, _Seconds], strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest("effective_at must be in unix seconds.", param="effective_at") from error
