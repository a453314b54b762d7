"""The one replica is lost, in each way there is, while two organizations stream: who got what is charged for just that.

The replica comes back by itself each time. What the engine's and the replica's own ends look like from close by is in
`tests/integration/serving/test_replica_deaths.py`. Its times are in the log.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from support.ray_cluster.charge_table import Bill, bill
from support.ray_cluster.gateway_load import GatewayLoad
from support.ray_cluster.served_platform import ServedPlatform, served_platform, waited
from support.ray_cluster.small_model import pulled
from support.replica_caller import engines

_LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.long, pytest.mark.timeout(1200), pytest.mark.asyncio]

LONG = 250
BEGUN_LIMIT_S, ANSWERED_LIMIT_S = 60.0, 120.0


def _replica_killed(processes: Sequence[psutil.Process]) -> None:
    (replica,) = [one for one in processes if "ray::ServeReplica" in "".join(one.cmdline()[:1])]
    replica.kill()


def _engine_killed(processes: Sequence[psutil.Process]) -> None:
    (engine,) = engines(list(processes))
    engine.kill()


def _engine_hangs(processes: Sequence[psutil.Process]) -> None:
    (engine,) = engines(list(processes))
    engine.suspend()


FAULTS = {"replica killed": _replica_killed, "engine killed": _engine_killed, "engine hangs": _engine_hangs}


async def lose_the_replica(
    platform: ServedPlatform, loads: Sequence[GatewayLoad], fault: Callable[[Sequence[psutil.Process]], None]
) -> float:
    """Do so while both organizations stream; return after how many seconds gateways were told of another replica."""
    (lost,) = await platform.replicas()
    async with AsyncExitStack() as stack:
        for load in loads:
            await stack.enter_async_context(load.clients(2, max_tokens=LONG, short=False))
        await waited(lambda: _all_stream(loads), limit_s=BEGUN_LIMIT_S)
        fault(platform.cluster.processes())
        back_s = await platform.until(lambda told: bool(told) and lost.name not in {one.name for one in told})
        answered = [_answered(load) for load in loads]
        await waited(lambda: _more(loads, answered), limit_s=ANSWERED_LIMIT_S)
    return back_s


async def _all_stream(loads: Sequence[GatewayLoad]) -> bool:
    under_way = [sum(one.tokens > 0 and one.usage is None and not one.said for one in load.asked) for load in loads]
    return min(under_way) >= 1


async def _more(loads: Sequence[GatewayLoad], than: Sequence[int]) -> bool:
    return all(_answered(load) > before for load, before in zip(loads, than, strict=True))


def _answered(load: GatewayLoad) -> int:
    return sum(one.usage is not None for one in load.asked)


async def test_each_client_pays_for_what_it_got(tmp_path: Path) -> None:
    async with served_platform(tmp_path, pulled()) as first:
        second = replace(first)
        await second.new_tenant("beta")
        loads = [GatewayLoad(first), GatewayLoad(second)]
        for name, fault in FAULTS.items():
            before = [Bill([], 0, 0, 0) if not load.asked else await bill(load.platform, load.asked) for load in loads]
            _LOG.warning("%s: back after %.1f s", name, await lose_the_replica(first, loads, fault))
            after = await asyncio.gather(*(bill(load.platform, load.asked) for load in loads))
            assert [table.wrong for table in after] == [[], []], name
            for earlier, later in zip(before, after, strict=True):
                assert later.cut > earlier.cut, f"{name}: a stream broke off"
                assert later.failed > earlier.failed, f"{name}: others were refused"
                assert later.answered > earlier.answered, f"{name}: it came back"
