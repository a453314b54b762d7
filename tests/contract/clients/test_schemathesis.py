"""Made-up requests to everything that a gateway says it serves: its answers are as described, and cost what they must.

`GENERATED_REQUESTS` says how many at least. Keys that a request may end or restrict are of their own organizations.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from contract.clients.conftest import installed
from support.billing.stand import balance, charges, live_budget, stream_length, worker
from support.fakes.model_server import Sent
from support.fakes.rate_cards import SHIPPED_CARDS
from support.fakes.tokenizers import save_byte_tokenizer
from support.fuzz.answer_shapes import problem_of
from support.fuzz.generated_requests import Exchange, Generated, generate
from support.servers.gateways import EMBEDDER, MODEL, GatewayFleet, running_gateways
from support.servers.postgres import empty_postgres
from tokenyard.core.ids import OrganizationId, request_of
from tokenyard.core.money import inference_cost
from tokenyard.gateway.endpoints.table import ENDPOINTS
from tokenyard.limits.sweeper import Sweeper
from tokenyard_billing.pricing.prices import PriceList

REQUESTS = int(os.environ.get("GENERATED_REQUESTS", "300"))
LONG = REQUESTS > 1000
FUZZING, EVERY_EDGE = "fuzzing", "coverage,fuzzing,stateful"
# The edges of each value are thousands by themselves; of some operations there are fewer cases than are asked for.
FUZZED_SHARE = 0.25 if LONG else 1.2
SEED = int(os.environ.get("GENERATED_SEED", "1"))
CREDIT = 5_000_000_000  # nano-dollars
ENDS_ITSELF = {
    "DELETE /v1/organization/projects/{project}/api_keys/{key}": "it may end the key in use",
    "POST /v1/organization/projects/{project}/api_keys/{key}": "it may limit the key in use, or let it expire",
    "POST /v1/organization/projects/{project}/rate_limits/{model}": "it may limit what the key in use can ask",
    "POST /v1/organization/projects/{project}/model_permissions": "it may forbid the key in use all models",
    "DELETE /admin/operator_keys/{key}": "it may end the key in use",
}
"""What is tried last, by keys that nobody needs any more, and why."""
PAID = {f"POST {endpoint.path}" for endpoint in ENDPOINTS}
_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"

pytestmark = pytest.mark.timeout(1_800)


@dataclass(frozen=True)
class Tenant:
    organization: OrganizationId
    key_id: str
    key: str


@dataclass(frozen=True)
class Outcome:
    """What came of it, by who asked, and what the books said afterwards."""

    operations: Mapping[str, frozenset[str]]
    by: Mapping[str, Generated]
    charged: Mapping[str, int]
    balances: Mapping[str, int]
    served: Sequence[Sent]
    books: Mapping[str, Any]

    @property
    def exchanges(self) -> Iterator[Exchange]:
        for generated in self.by.values():
            yield from generated.exchanges


@pytest.fixture(scope="module", params=["sqlite", "postgres"] if LONG else ["sqlite"])
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    url = "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    with ThreadPoolExecutor(1) as threads:  # the browser tests keep a loop running in this one
        return threads.submit(asyncio.run, _all_asked(tmp_path_factory.mktemp("stand"), url)).result()


async def _all_asked(folder: Path, database_url: str) -> Outcome:
    url = await empty_postgres(database_url) if database_url else ""
    for model in (MODEL, EMBEDDER):
        files = folder / "models" / model
        files.mkdir(parents=True)
        save_byte_tokenizer(files)
        (files / "chat_template.jinja").write_text(_TEMPLATE)
    async with running_gateways(
        folder, 1, database_url=url, models=(MODEL, EMBEDDER), opening_credit_dollars="0"
    ) as fleet:
        return await Asking(fleet, folder).outcome()


class Asking:
    """Sends everything, each by who may be lost with it."""

    def __init__(self, fleet: GatewayFleet, folder: Path) -> None:
        self._fleet = fleet
        self._folder = folder
        self._done: dict[str, Generated] = {}

    async def outcome(self) -> Outcome:
        operations = await self._operations()
        asked = set(operations) - set(ENDS_ITSELF)
        admin = {name for name in asked if "OperatorKey" in operations[name]}
        keyed = {name for name in asked if "ApiKey" in operations[name]}
        tenants = {slug: await self._tenant(slug) for slug in ("funded", "poor", "revoked", "ending")}
        for slug in tenants.keys() - {"poor"}:
            await self._fleet.admin("POST", f"/admin/organizations/{slug}/credits", {"amount": CREDIT, "reason": "x"})
        await self._fleet.foundation.outbox.step()
        await self._fleet.admin("DELETE", f"/admin/organizations/revoked/api_keys/{tenants['revoked'].key_id}")

        await self._ask("funded", asked - admin, 0.55, tenants["funded"].key)
        await self._ask("poor", PAID, 0.1, tenants["poor"].key)
        await self._ask("revoked", keyed, 0.1, tenants["revoked"].key)
        await self._let_the_ledger_catch_up(tenants)
        database = self._fleet.foundation.database
        balances = {slug: await balance(database, tenant.organization) for slug, tenant in tenants.items()}
        charged = {key: int(row.amount) for key, row in (await charges(database)).items()}
        books = await self._fleet.admin("GET", "/admin/reconcile")

        await self._ask("operator", admin, 0.2, tenants["ending"].key)
        await self._ask("ending", set(ENDS_ITSELF), 0.05, tenants["ending"].key)
        return Outcome(operations, self._done, charged, balances, list(self._fleet.server.log), books)

    async def _operations(self) -> dict[str, frozenset[str]]:
        """Return everything that is described, and the kinds of keys that each wants."""
        description = await (await self._fleet.call(0, "GET", "/openapi.json", "")).json()
        return {
            f"{method.upper()} {path}": frozenset(name for one in operation.get("security", ()) for name in one)
            for path, operations in description["paths"].items()
            for method, operation in operations.items()
        }

    async def _tenant(self, slug: str) -> Tenant:
        found = await self._fleet.admin("POST", "/admin/organizations", {"name": slug, "slug": slug})
        key = await self._fleet.admin("POST", f"/admin/organizations/{slug}/api_keys", {"name": "test"})
        return Tenant(OrganizationId(found["id"]), key["id"], key["value"])

    async def _ask(self, who: str, operations: set[str], share: float, key: str) -> None:
        folder = self._folder / who
        folder.mkdir()
        self._done[who] = await generate(
            installed("python/bin/python"),
            folder,
            self._fleet.urls[0],
            *("--phases", EVERY_EDGE if LONG and who != "revoked" else FUZZING),
            *(word for name in sorted(operations) for word in ("--include-name", name)),
            cases=ceil(share * FUZZED_SHARE * REQUESTS / len(operations)),
            seed=SEED,
            tenant_key=key,
            operator_key=self._fleet.admin_key,
        )

    async def _let_the_ledger_catch_up(self, tenants: Mapping[str, Tenant]) -> None:
        foundation = self._fleet.foundation
        stand = worker(foundation.database, foundation.redis, report_wait_ms=0)
        async with asyncio.timeout(120):
            while not all([await self._decided(tenant.organization) for tenant in tenants.values()]):
                await Sweeper(foundation.redis, renewal_ms=0).sweep()
                await stand.consumer.step()
        await stand.leases.release()

    async def _decided(self, organization: OrganizationId) -> bool:
        redis = self._fleet.foundation.redis
        live = await live_budget(redis, organization)
        return not (await stream_length(redis, organization) or live.get("pending") or live.get("held"))


def test_everything_described_was_asked(outcome: Outcome) -> None:
    asked = {one.operation for one in outcome.exchanges}
    assert asked == set(outcome.operations)
    assert set(ENDS_ITSELF) | PAID <= asked
    assert len(list(outcome.exchanges)) >= REQUESTS


def test_every_answer_is_as_described(outcome: Outcome) -> None:
    findings = "".join(generated.findings for generated in outcome.by.values())
    assert not findings, findings


def test_no_server_error_and_every_error_in_the_shape_of_its_protocol(outcome: Outcome) -> None:
    paid = {endpoint.path for endpoint in ENDPOINTS}
    wrong = [
        f"{problem}: {one}"
        for one in outcome.exchanges
        if (one.status >= 400 or (one.method == "POST" and one.path in paid))
        and (problem := problem_of(one.path, one.status, one.headers, one.body))
    ]
    assert wrong == []
    assert [str(one) for one in outcome.exchanges if one.status >= 500] == []


def test_who_has_no_credit_is_served_nothing(outcome: Outcome) -> None:
    refused = outcome.by["poor"].exchanges
    assert refused
    assert [str(one) for one in refused if one.status < 400] == []
    assert any(one.status == 429 for one in refused), "nothing was refused for want of money"
    assert outcome.balances["poor"] == 0
    assert not outcome.charged.keys() & {one.request for one in refused}


def test_a_revoked_key_opens_nothing(outcome: Outcome) -> None:
    assert {one.status for one in outcome.by["revoked"].exchanges} <= {400, 401, 404, 405, 413}
    assert outcome.balances["revoked"] == CREDIT


def test_what_was_served_is_charged_and_nothing_else(outcome: Outcome) -> None:
    prices = PriceList(SHIPPED_CARDS)
    costs: Counter[str] = Counter()
    for sent in outcome.served:
        costs[request_of(sent.claims.attempt)] += inference_cost(prices.by_id(sent.claims.price), sent.usage)
    served = {
        one.request
        for one in outcome.by["funded"].exchanges
        if one.operation in PAID and one.status == 200 and "idempotent-replayed" not in one.headers
    }
    assert served
    assert set(costs) <= served
    assert {key: amount for key, amount in outcome.charged.items() if amount} == +costs
    assert outcome.balances["funded"] == CREDIT - sum(costs.values())
    assert outcome.books["ok"], outcome.books
