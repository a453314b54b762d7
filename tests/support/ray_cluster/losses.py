"""Parts of a cluster are killed while clients ask through the gateway: a node, Serve's controller, the head."""

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import func, select

from support.ray_cluster.charge_table import Bill, bill
from support.ray_cluster.gateway_load import GatewayLoad
from support.ray_cluster.ray_node import RayNode
from support.ray_cluster.rescaling import names
from support.ray_cluster.served_platform import ServedPlatform, waited
from tokenyard.core.replica import Replica
from tokenyard_billing.tables import Charge

CLIENTS, TOKENS = 6, 64
BEFORE_S, AWAY_S, AFTER_S = 3.0, 10.0, 3.0


@dataclass(frozen=True)
class NodeLost:
    """Seconds from the kill until gateways were told of its replica no more, another one served on the node that took
    its place, and that one held the adapter. `retried` answers came from a second replica.
    """

    bill: Bill
    noticed_s: float
    replaced_s: float
    adapter_back_s: float
    retried: int


async def lose_a_node(platform: ServedPlatform, load: GatewayLoad) -> NodeLost:
    """Kill a node once both replicas hold the adapter; one at the same address takes its place."""
    async with load.clients(CLIENTS, max_tokens=TOKENS, short=False):
        await platform.until(lambda told: all(_holds(platform, one) for one in told))
        await asyncio.sleep(BEFORE_S)
        before = await platform.replicas()
        lost = before[0]
        node = node_of(platform, lost)
        began = time.monotonic()
        killing = asyncio.create_task(asyncio.to_thread(node.kill))
        await platform.until(lambda told: lost.name not in names(told))
        noticed_s = time.monotonic() - began
        await killing
        await asyncio.to_thread(node.start)
        await platform.until(lambda told: len(told) == len(before) and lost.name not in names(told))
        replaced_s = time.monotonic() - began
        await platform.until(lambda told: all(_holds(platform, one) for one in told))
        adapter_back_s = time.monotonic() - began
    table = await bill(platform, load.asked)
    return NodeLost(table, noticed_s, replaced_s, adapter_back_s, await _retried(platform))


@dataclass(frozen=True)
class PartAway:
    """Seconds until Serve named all replicas again, after the part was killed and after it was started again."""

    bill: Bill
    since_killed_s: float
    since_started_s: float
    answered_meanwhile: int


async def lose_the_controller(platform: ServedPlatform, load: GatewayLoad) -> PartAway:
    """Kill Serve's controller, which Ray starts again."""
    replicas = names(await platform.replicas())
    async with load.clients(CLIENTS, max_tokens=TOKENS):
        await asyncio.sleep(BEFORE_S)
        began = time.monotonic()
        await kill_the_controller(platform)
        back_s = await waited(lambda: _named(platform, replicas), limit_s=120)
        await asyncio.sleep(AFTER_S)
    meanwhile = [one for one in load.asked if one.usage and began <= one.at_s <= began + back_s]
    return PartAway(await bill(platform, load.asked), back_s, back_s, len(meanwhile))


async def kill_the_controller(platform: ServedPlatform) -> None:
    (controller,) = platform.cluster.actors("ServeController")
    controller.kill()
    await waited(lambda: _gone(controller.pid, platform), limit_s=10)


async def lose_the_head(platform: ServedPlatform, load: GatewayLoad) -> PartAway:
    """Kill the head with all that runs there (GCS, dashboard, Serve's controller and proxy), and start another."""
    replicas = names(await platform.replicas())
    async with load.clients(CLIENTS, max_tokens=TOKENS):
        await asyncio.sleep(BEFORE_S)
        began = time.monotonic()
        await asyncio.to_thread(platform.cluster.head.kill)
        await asyncio.sleep(AWAY_S)
        models = await platform.admin("GET", "/admin/organizations")
        assert models, "the control plane answers"
        started = time.monotonic()
        await asyncio.to_thread(platform.cluster.start_head_again)
        await waited(lambda: _named(platform, replicas), limit_s=180)
        back = time.monotonic()
        await asyncio.sleep(AFTER_S)
    meanwhile = [one for one in load.asked if one.usage and began <= one.at_s <= started]
    return PartAway(await bill(platform, load.asked), back - began, back - started, len(meanwhile))


def node_of(platform: ServedPlatform, replica: Replica) -> RayNode:
    address = urlsplit(replica.url).hostname
    return next(one for one in platform.cluster.nodes if one.address == address)


def _holds(platform: ServedPlatform, replica: Replica) -> bool:
    return platform.adapter in replica.adapters


async def _named(platform: ServedPlatform, replicas: set[str]) -> bool:
    """Tell whether Serve itself names just these replicas."""
    return await platform.named() == replicas


async def _gone(pid: int, platform: ServedPlatform) -> bool:
    return pid not in {one.pid for one in platform.cluster.processes()}


async def _retried(platform: ServedPlatform) -> int:
    async with platform.foundation.database.reading() as session:
        of_tenant = Charge.organization == platform.organization, ~Charge.attempt.endswith(".1")
        return await session.scalar(select(func.count()).where(*of_tenant)) or 0
