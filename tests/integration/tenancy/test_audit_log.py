"""Who changed what, filtered as OpenAI's audit log is."""

from collections.abc import Mapping
from typing import Any

import pytest

from support.tenancy_stand import Tenancy, bearer

LOG = "/v1/organization/audit_logs"


async def _log(tenancy: Tenancy, secret: str, **query: Any) -> list[Mapping[str, object]]:
    answer = await tenancy.http.get(LOG, params=query, headers=bearer(secret))
    assert answer.status_code == 200, answer.text
    found: list[Mapping[str, object]] = answer.json()["data"]
    return found


async def test_by_what_was_done_by_whom_to_what_and_when(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    _, stranger = await tenancy.new_tenant("other")
    keys = f"/v1/organization/projects/{organization.default_project_id}/api_keys"
    first, second = [
        (await tenancy.http.post(keys, json={"name": name}, headers=bearer(secret))).json()["id"] for name in "ab"
    ]
    assert (await tenancy.http.delete(f"{keys}/{first}", headers=bearer(secret))).status_code == 200
    of_first = await _log(tenancy, secret, **{"resource_ids[]": first})
    assert [entry["resource_id"] for entry in of_first] == [first, first]
    revoked, created = (str(entry["type"]) for entry in of_first)
    assert len(await _log(tenancy, secret, **{"event_types[]": revoked})) == 1
    both = await _log(tenancy, secret, **{"resource_ids": [first, second], "event_types[]": created})
    assert [entry["resource_id"] for entry in both] == [second, first]
    actor = of_first[0]["actor"]
    assert isinstance(actor, dict)
    own = await _log(tenancy, secret, **{"actor_ids[]": actor["api_key"]["id"]})
    everything = await _log(tenancy, secret)
    assert 0 < len(own) < len(everything), "an operator made the organization"
    at = of_first[0]["effective_at"]
    assert len(await _log(tenancy, secret, **{"effective_at[lte]": at, "effective_at[gt]": 0})) == len(everything)
    assert await _log(tenancy, secret, **{"effective_at[lt]": 1}) == []
    assert await _log(tenancy, stranger, **{"resource_ids[]": first}) == []
    of_all = (await tenancy.as_operator("GET", f"/admin/audit_logs?resource_ids={first}")).json()["data"]
    assert of_all == of_first


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("effective_at[at]=1", "effective_at"),
        ("effective_at=1", "effective_at"),
        ("effective_at[gt]=soon", "effective_at"),
        ("effective_at[gt]=99999999999999999999", "effective_at"),
        ("&".join(["event_types=a"] * 101), "event_types"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(tenancy: Tenancy, query: str, param: str) -> None:
    _, secret = await tenancy.new_tenant("acme")
    answer = await tenancy.http.get(f"{LOG}?{query}", headers=bearer(secret))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
