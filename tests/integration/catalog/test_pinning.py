"""Plans that keep adapters in memory: which, where, how soon, and what is left for the others."""

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from support.fakes.replicas import FakeReplicas
from tokenyard.catalog.adapters.hosting import Hosting
from tokenyard.catalog.replicas.discovery import Discovery
from tokenyard.catalog.replicas.pinning import Pinning
from tokenyard.catalog.replicas.placement import Placement
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.catalog.tables import AdapterRow
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId
from tokenyard.core.principal import Principal

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog

ACME, UMBRA = OrganizationId("org_acme"), OrganizationId("org_umbra")
ROOM = 4


class Plans:
    """`ports.PinningPlans` for tests."""

    def __init__(self) -> None:
        self.places: dict[OrganizationId, int] = {}

    async def pinned_adapters(self) -> dict[OrganizationId, int]:
        return self.places


class PinnedReplicas:
    """Two replicas, and the worker's loops run by hand."""

    def __init__(self, catalog: "Catalog") -> None:
        self.catalog, self.replicas, self.plans = catalog, FakeReplicas(), Plans()
        self.replicas.room = ROOM
        for name in ("r1", "r2"):
            self.replicas.add(name, "smol")
        leases = [WorkLease(catalog.redis, name, 60_000) for name in ("discovery", "pins", "adapters")]
        self.discovery = Discovery(self.replicas, self.replicas, catalog.registry, leases[0], catalog.clock)
        self.pinning = Pinning(
            plans=self.plans,
            store=catalog.operator_store,
            hosting=Hosting(catalog.database, catalog.outbox, catalog.clock),
            replicas=self.replicas,
            registry=catalog.registry,
            lease=leases[1],
            clock=catalog.clock,
        )
        self.placement = Placement(
            store=catalog.operator_store,
            replicas=self.replicas,
            registry=catalog.registry,
            lease=leases[2],
            clock=catalog.clock,
        )

    async def live(self, count: int, organization: OrganizationId = ACME) -> list[str]:
        """Make fine-tunes, each a second younger than the one before."""
        names = []
        for _ in range(count):
            self.catalog.clock.advance(1)
            names.append(str(await self.catalog.live(organization)))
        return names

    async def step(self) -> None:
        """One round of each loop, a second later."""
        self.catalog.clock.advance(1)
        await self.discovery.step()
        await self.pinning.step()
        await self.placement.step()

    @property
    def pinned(self) -> list[str]:
        return sorted(name for names in self.replicas.pinned.values() for name in names)

    def holders(self, name: str) -> list[str]:
        return [replica for replica, held in self.replicas.held.items() if name in held]

    async def noted(self) -> list[str]:
        async with self.catalog.database.reading() as session:
            return sorted(await session.scalars(select(AdapterRow.name).where(AdapterRow.pinned_ms.is_not(None))))


@pytest.fixture
def stand(catalog: "Catalog") -> PinnedReplicas:
    return PinnedReplicas(catalog)


async def test_a_change_of_the_plan_is_in_force_in_the_next_round(stand: PinnedReplicas) -> None:
    names = await stand.live(3)
    await stand.step()
    assert (stand.pinned, await stand.noted()) == ([], [])
    stand.plans.places = {ACME: 2}
    await stand.step()
    assert stand.pinned == sorted(names[1:]), "those that went live last"
    assert await stand.noted() == sorted(names[1:])
    assert all(stand.holders(name) for name in names[1:])
    stand.plans.places = {}
    await stand.step()
    assert (stand.pinned, await stand.noted()) == ([], [])


async def test_those_that_aliases_name_come_first(stand: PinnedReplicas) -> None:
    names = await stand.live(3)
    owner = Principal(organization=ACME, project=ProjectId("proj_1"), key=ApiKeyId("key_1"), revision=1)
    await stand.catalog.aliases.point(owner, "bot", names[0])
    stand.plans.places = {ACME: 2}
    await stand.step()
    assert stand.pinned == sorted([names[0], names[2]])
    await stand.catalog.adapters.delete(ACME, names[0], actor=ApiKeyId("key_1"))
    await stand.step()
    assert stand.pinned == sorted(names[1:])


async def test_pins_never_fill_all_places_and_everybody_s_first_comes_before_a_second(stand: PinnedReplicas) -> None:
    owners = [OrganizationId(f"org_{number}") for number in range(3)]
    names = {owner: await stand.live(6, owner) for owner in owners}
    stand.plans.places = dict.fromkeys(owners, 6)
    for _ in range(3):
        await stand.step()
    assert [len(names) for names in stand.replicas.pinned.values()] == [ROOM // 2, ROOM // 2]
    assert {of_one[-1] for of_one in names.values()} <= set(stand.pinned), "the newest of each"
    cold = str(await stand.catalog.live())
    await stand.step()
    assert stand.holders(cold), "one that is not pinned can still be loaded"
    assert all(stand.holders(name) for name in stand.pinned)


async def test_a_replica_that_starts_anew_is_told_and_one_that_is_silent_changes_nothing(stand: PinnedReplicas) -> None:
    (name,) = await stand.live(1)
    stand.plans.places = {ACME: 1}
    await stand.step()
    (holder,) = stand.holders(name)
    stand.replicas.silent.add(holder)
    await stand.step()
    assert await stand.noted() == [name], "it may keep it still"
    stand.replicas.silent.clear()
    stand.replicas.pinned.clear()
    stand.replicas.held[holder].clear()
    for _ in range(10):
        await stand.step()
    assert (stand.pinned, await stand.noted()) == ([name], [name])
    assert stand.holders(name)
