"""Finding replicas and placing adapters: over a real Valkey and real SQL, with replicas that misbehave."""

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from support.fakes.clock import FrozenClock
from support.fakes.replicas import SLOTS, TOKENS_EACH, FakeReplicas
from tokenyard.catalog.replicas.discovery import Discovery
from tokenyard.catalog.replicas.placement import Placement
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.catalog.replicas.replica_list import ReplicaList
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.storage.redis import connect_redis

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog


@pytest.fixture
def replicas() -> FakeReplicas:
    return FakeReplicas()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def registry(redis: Redis) -> ReplicaRegistry:
    return ReplicaRegistry(redis)


@pytest.fixture
def discovery(replicas: FakeReplicas, registry: ReplicaRegistry, redis: Redis, clock: FrozenClock) -> Discovery:
    return Discovery(replicas, replicas, registry, WorkLease(redis, "discovery", 10_000), clock)


@pytest.fixture
def placement(catalog: "Catalog", replicas: FakeReplicas) -> Placement:
    return Placement(
        store=catalog.operator_store,
        replicas=replicas,
        registry=catalog.registry,
        lease=WorkLease(catalog.redis, "adapters", 60_000),
        clock=catalog.clock,
    )


async def look(discovery: Discovery, clock: FrozenClock) -> None:
    clock.advance(1)
    await discovery.step()


async def names(registry: ReplicaRegistry) -> list[str]:
    read = await registry.read()
    assert read is not None
    return [replica.name for replica in read.replicas]


async def test_what_serve_lists_and_answers_is_published(
    discovery: Discovery, replicas: FakeReplicas, registry: ReplicaRegistry, clock: FrozenClock
) -> None:
    assert await registry.read() is None
    await look(discovery, clock)
    assert await names(registry) == []
    replicas.add("r1", "smol", adapters=["ft:x"], running=3)
    replicas.add("r2", "big")
    await look(discovery, clock)
    read = await registry.read()
    assert read is not None
    assert read.complete
    first = read.replicas[0]
    assert (first.adapters, first.running, first.waiting) == (("ft:x",), 3, 0)
    assert (first.slots, first.waiting_tokens) == (SLOTS, 3 * TOKENS_EACH)
    assert [replica.name for replica in await registry.of("big")] == ["r2"]
    replicas.remove("r1")
    await look(discovery, clock)
    assert await names(registry) == ["r2"]


async def test_a_replica_may_miss_two_looks_and_is_off_the_list_at_the_third(
    discovery: Discovery, replicas: FakeReplicas, registry: ReplicaRegistry, clock: FrozenClock
) -> None:
    replicas.add("r1", "smol")
    replicas.add("r2", "smol")
    await look(discovery, clock)
    replicas.silent.add("r1")
    for _ in range(2):
        await look(discovery, clock)
        assert await names(registry) == ["r1", "r2"]
        read = await registry.read()
        assert read is not None
        assert not read.complete
    await look(discovery, clock)
    assert await names(registry) == ["r2"]
    replicas.silent.clear()
    await look(discovery, clock)
    assert await names(registry) == ["r1", "r2"]


async def test_a_replica_that_never_answered_is_not_listed(
    discovery: Discovery, replicas: FakeReplicas, registry: ReplicaRegistry, clock: FrozenClock
) -> None:
    replicas.add("starting", "smol")
    replicas.silent.add("starting")
    await look(discovery, clock)
    assert await names(registry) == []


async def test_an_address_that_now_belongs_to_another_replica_is_not_listed(
    discovery: Discovery, replicas: FakeReplicas, registry: ReplicaRegistry, clock: FrozenClock
) -> None:
    replicas.add("old", "smol")
    replicas.answers_as["old"] = "new"
    await look(discovery, clock)
    assert await names(registry) == []


async def test_while_serve_s_controller_is_away_its_last_list_is_used(
    discovery: Discovery, replicas: FakeReplicas, registry: ReplicaRegistry, clock: FrozenClock, redis: Redis
) -> None:
    replicas.add("r1", "smol")
    await look(discovery, clock)
    replicas.serve_is_up = False
    replicas.load_of["r1"] = 7
    await look(discovery, clock)
    read = await registry.read()
    assert read is not None
    assert [(replica.name, replica.running) for replica in read.replicas] == [("r1", 7)]
    await redis.delete("ty:lease:discovery")
    fresh = Discovery(replicas, replicas, registry, WorkLease(redis, "discovery", 10_000), clock)
    await look(fresh, clock)
    assert await names(registry) == ["r1"], "a new worker that cannot ask leaves the list as it was"


async def test_one_worker_looks_and_another_takes_over(
    replicas: FakeReplicas, registry: ReplicaRegistry, clock: FrozenClock, redis: Redis
) -> None:
    first = Discovery(replicas, replicas, registry, WorkLease(redis, "discovery", 200), clock)
    second = Discovery(replicas, replicas, registry, WorkLease(redis, "discovery", 200), clock)
    await look(first, clock)
    replicas.add("r1", "smol")
    await look(second, clock)
    assert await names(registry) == []
    deadline = time.monotonic() + 5
    while await names(registry) == [] and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
        await look(second, clock)
    assert await names(registry) == ["r1"]


async def test_without_redis_discovery_goes_on(replicas: FakeReplicas, clock: FrozenClock) -> None:
    nowhere = connect_redis("redis://127.0.0.1:1/0")
    await Discovery(replicas, replicas, ReplicaRegistry(nowhere), WorkLease(nowhere, "discovery", 1000), clock).step()


async def test_a_gateway_is_offered_the_replicas_of_a_model(
    discovery: Discovery, replicas: FakeReplicas, registry: ReplicaRegistry, clock: FrozenClock
) -> None:
    replicas.add("r1", "smol", running=9)
    replicas.add("r2", "smol")
    replicas.add("other", "big")
    await look(discovery, clock)
    async with ReplicaList(registry) as listed:
        assert {one.name for one in listed.candidates("smol")} == {"r1", "r2"}
        assert {one.name for one in listed.candidates("big")} == {"other"}
        assert listed.candidates("none") == ()
        assert await listed.has_replicas()


async def test_a_gateway_keeps_its_list_when_redis_is_emptied_or_away(
    discovery: Discovery, replicas: FakeReplicas, registry: ReplicaRegistry, clock: FrozenClock, redis: Redis
) -> None:
    replicas.add("r1", "smol")
    await look(discovery, clock)
    listed = ReplicaList(registry)
    await listed.refresh()
    await redis.flushall()
    await listed.refresh()
    assert len(listed.candidates("smol")) == 1
    listed._registry = ReplicaRegistry(connect_redis("redis://127.0.0.1:1/0"))
    await listed.refresh()
    assert len(listed.candidates("smol")) == 1


@pytest.fixture
def gateway_clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def two_listed(
    discovery: Discovery,
    replicas: FakeReplicas,
    registry: ReplicaRegistry,
    clock: FrozenClock,
    gateway_clock: FrozenClock,
) -> ReplicaList:
    """A gateway's list of the replicas r1 and r2."""
    replicas.add("r1", "smol")
    replicas.add("r2", "smol")
    await look(discovery, clock)
    listed = ReplicaList(registry, now=gateway_clock)
    await listed.refresh()
    return listed


async def test_an_ejected_replica_returns_when_it_was_seen_twice_afresh(
    discovery: Discovery, clock: FrozenClock, two_listed: ReplicaList
) -> None:
    two_listed.eject("r1")
    for _ in range(2):
        assert [one.name for one in two_listed.candidates("smol")] == ["r2"]
        await two_listed.refresh()
        assert [one.name for one in two_listed.candidates("smol")] == ["r2"], "the same look tells nothing new"
        await look(discovery, clock)
        await two_listed.refresh()
    assert [one.name for one in two_listed.candidates("smol")] == ["r1", "r2"]


async def test_an_ejection_ends_by_itself_while_the_worker_is_away(
    two_listed: ReplicaList, gateway_clock: FrozenClock
) -> None:
    two_listed.eject("r1")
    assert [one.name for one in two_listed.candidates("smol")] == ["r2"]
    gateway_clock.advance(10)
    assert len(two_listed.candidates("smol")) == 2


async def test_ejected_replicas_are_offered_where_there_is_no_other(two_listed: ReplicaList) -> None:
    two_listed.eject("r1")
    two_listed.eject("r2")
    assert [one.name for one in two_listed.candidates("smol")] == ["r1", "r2"]


async def test_a_running_gateway_sees_a_new_replica_by_itself(
    discovery: Discovery, replicas: FakeReplicas, registry: ReplicaRegistry, clock: FrozenClock
) -> None:
    async with ReplicaList(registry) as listed:
        assert not await listed.has_replicas()
        replicas.add("r1", "smol")
        await look(discovery, clock)
        deadline = time.monotonic() + 10
        while not listed.candidates("smol") and time.monotonic() < deadline:  # noqa: ASYNC110 - it has a limit
            await asyncio.sleep(0.02)
        assert listed.candidates("smol")


class Placed:
    """A catalog with one replica, and the two loops run by hand."""

    def __init__(self, catalog: "Catalog", replicas: FakeReplicas, placement: Placement) -> None:
        self.catalog, self.replicas, self.placement = catalog, replicas, placement
        self.discovery = Discovery(
            replicas, replicas, catalog.registry, WorkLease(catalog.redis, "discovery", 10_000), catalog.clock
        )

    async def step(self, seconds: float = 6) -> None:
        self.catalog.clock.advance(seconds)
        await self.discovery.step()
        await self.placement.step()

    @property
    def held(self) -> list[str]:
        return self.replicas.held["r1"]


@pytest.fixture
def placed(catalog: "Catalog", replicas: FakeReplicas, placement: Placement) -> Placed:
    replicas.add("r1", "smol")
    return Placed(catalog, replicas, placement)


async def test_live_adapters_are_loaded_before_anybody_asks_newest_first(placed: Placed) -> None:
    made = []
    for _ in range(5):
        placed.catalog.clock.advance(100)
        made.append(str(await placed.catalog.live()))
    await placed.catalog.checking()
    await placed.step(100)
    assert placed.held == [made[4], made[3], made[2]]
    await placed.step()
    assert len(placed.replicas.calls) == 3, "nothing is loaded twice"


async def test_a_full_replica_is_left_alone_but_for_a_brand_new_adapter(placed: Placed) -> None:
    for _ in range(4):
        await placed.catalog.live()
    await placed.step(100)
    loads = len(placed.replicas.calls)
    new = await placed.catalog.live()
    await placed.step()
    assert placed.replicas.calls[loads:] == [("load", "r1", str(new))]


async def test_an_adapter_under_check_is_not_unloaded(placed: Placed) -> None:
    name = await placed.catalog.checking()
    placed.replicas.held["r1"] = [str(name), "ft:smol:nobody:x:0000"]
    await placed.step()
    assert placed.held == [str(name)]


async def test_an_adapter_that_does_not_load_is_tried_ever_more_seldom(placed: Placed) -> None:
    name = str(await placed.catalog.live())
    placed.replicas.refused.add(name)
    for _ in range(20):
        await placed.step(2)
    assert len(placed.replicas.calls) == 3  # at 2, 12 and 32 s
    placed.replicas.refused.clear()
    await placed.step(300)
    assert placed.held == [name]


async def test_nothing_is_done_by_an_old_list(placed: Placed) -> None:
    await placed.catalog.live()
    await placed.discovery.step()
    placed.catalog.clock.advance(11)
    await placed.placement.step()
    assert placed.replicas.calls == []


async def test_a_silent_replica_does_not_keep_others_from_their_adapters(placed: Placed) -> None:
    await placed.catalog.live()
    await placed.discovery.step()
    placed.replicas.add("r2", "smol")
    placed.replicas.silent.add("r1")
    await placed.step()
    assert len(placed.replicas.held["r2"]) == 1
