"""Adapters over several replicas: each somewhere, hot ones on more, pinned ones always, none in and out for ever."""

from typing import TYPE_CHECKING

import pytest

from support.fakes.replicas import FakeReplicas
from tokenyard.catalog.replicas.discovery import Discovery
from tokenyard.catalog.replicas.placement import Placement
from tokenyard.catalog.replicas.work_lease import WorkLease

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog

ROOM = 3


class SeveralReplicas:
    """Three of them, which push out what they have no room for, and the two loops run by hand."""

    def __init__(self, catalog: "Catalog") -> None:
        self.catalog, self.replicas = catalog, FakeReplicas()
        self.replicas.room = ROOM
        for number in (1, 2, 3):
            self.replicas.add(f"r{number}", "smol")
        leases = [WorkLease(catalog.redis, name, 60_000) for name in ("discovery", "adapters")]
        self.discovery = Discovery(self.replicas, self.replicas, catalog.registry, leases[0], catalog.clock)
        self.placement = Placement(
            store=catalog.operator_store,
            replicas=self.replicas,
            registry=catalog.registry,
            lease=leases[1],
            clock=catalog.clock,
        )

    async def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.catalog.clock.advance(6)
            await self.discovery.step()
            await self.placement.step()

    async def live(self, count: int) -> list[str]:
        return [str(await self.catalog.live()) for _ in range(count)]

    def holders(self, name: str) -> list[str]:
        return [replica for replica, held in self.replicas.held.items() if name in held]

    @property
    def loads(self) -> int:
        return sum(call[0] == "load" for call in self.replicas.calls)


@pytest.fixture
def several(catalog: "Catalog") -> SeveralReplicas:
    return SeveralReplicas(catalog)


async def test_each_is_on_one_replica_and_the_places_of_all_are_used(several: SeveralReplicas) -> None:
    names = await several.live(6)
    several.catalog.clock.advance(100)
    await several.step(3)
    assert [len(several.holders(name)) for name in names] == [1] * 6
    assert [len(held) for held in several.replicas.held.values()] == [2, 2, 2]
    assert several.loads == 6


async def test_one_that_is_asked_for_most_is_on_more(several: SeveralReplicas) -> None:
    names = await several.live(3)
    several.catalog.clock.advance(100)
    several.replicas.rates = {f"r{number}": {names[1]: 3.0, names[0]: 0.1} for number in (1, 2, 3)}
    await several.step(3)
    assert len(several.holders(names[1])) == 3
    assert len(several.holders(names[0])) == len(several.holders(names[2])) == 1


async def test_a_pinned_adapter_is_loaded_where_there_is_no_room_and_stays(several: SeveralReplicas) -> None:
    names = await several.live(12)
    several.catalog.clock.advance(100)
    await several.step(3)
    pinned = next(name for name in names if not several.holders(name))
    several.replicas.pinned["r2"] = (pinned, "ft:smol:nobody:x:1")
    await several.step()
    (holder,) = several.holders(pinned)
    assert holder == "r2"
    loads = several.loads
    await several.step(5)
    assert (several.holders(pinned), several.loads) == ([holder], loads)


async def test_each_replica_holds_as_many_as_it_says_that_it_can(several: SeveralReplicas) -> None:
    several.replicas.places = {"r1": 1, "r2": 6, "r3": 0}
    names = await several.live(7)
    several.catalog.clock.advance(100)
    await several.step(4)
    assert [len(several.replicas.held[name]) for name in ("r1", "r2", "r3")] == [1, 6, 0]
    assert all(several.holders(name) for name in names)


async def test_nothing_is_loaded_again_and_again_however_many_are_made_at_once(several: SeveralReplicas) -> None:
    """Nine places for forty, all of them new: each is shown once, and what it pushed out does not come back."""
    names = await several.live(40)
    await several.step(40)
    assert several.loads <= 40
    before = several.loads
    several.replicas.rates = {f"r{number}": dict.fromkeys(names, 1.0) for number in (1, 2, 3)}
    await several.step(40)
    assert several.loads == before, "all places are taken, and what is asked for comes by itself"


async def test_when_a_replica_goes_what_it_held_comes_up_elsewhere_and_the_rest_stays(several: SeveralReplicas) -> None:
    names = await several.live(4)
    several.catalog.clock.advance(100)
    await several.step(2)
    where = {name: several.holders(name)[0] for name in names}
    gone = where[names[0]]
    several.replicas.remove(gone)
    del several.replicas.held[gone]
    await several.step(3)
    for name in names:
        assert several.holders(name)
        if where[name] != gone:
            assert where[name] in several.holders(name)


async def test_one_that_does_not_say_what_it_is_asked_for_keeps_nobody(several: SeveralReplicas) -> None:
    names = await several.live(4)
    several.catalog.clock.advance(100)
    await several.discovery.step()
    several.replicas.silent.add("r1")
    await several.step(3)
    assert all(several.holders(name) for name in names)
