"""A model's replicas become more and fewer, or others, while clients ask for it through the gateway."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import func, select

from support.ray_cluster.charge_table import Bill, bill
from support.ray_cluster.gateway_load import GatewayLoad
from support.ray_cluster.served_platform import SERVES_LIMIT_S, ServedPlatform, waited
from tokenyard.core.model_files.accelerators import AutoscalingSpec
from tokenyard.core.replica import Replica
from tokenyard_billing.tables import UsageReport

SCALING = AutoscalingSpec(
    min_replicas=1, max_replicas=2, target_tokens=1200, upscale_delay_s=0, downscale_delay_s=0, to_zero_delay_s=0
)
FEW, MORE, LONG = 3, 3, 96
"""An answer so long and its prompt are counted as 350 tokens: few have less inside than one replica should have."""


@dataclass(frozen=True)
class Rescaled:
    """Seconds until the second replica served, and from when the load fell until Serve named one of them no more.

    `drained` is how many answers that one gave after this.
    """

    bill: Bill
    up_s: float
    down_s: float
    drained: int


async def scale_up_and_down(platform: ServedPlatform, load: GatewayLoad) -> Rescaled:
    """Ask for more than one replica should have inside, then for less. The model's file says `SCALING`."""
    async with load.clients(FEW, max_tokens=LONG, short=False):
        async with load.clients(MORE, max_tokens=LONG, short=False):
            up_s = await platform.until(lambda told: len(told) == SCALING.max_replicas)
            both = await platform.named()
        fell = time.monotonic()
        await waited(lambda: _fewer(platform, both), limit_s=SERVES_LIMIT_S)
        down_s, went_ms = time.monotonic() - fell, platform.foundation.clock.now_ms()
        (gone,) = both - await platform.named()
        await platform.until(lambda told: gone not in names(told))
    table = await bill(platform, load.asked)
    return Rescaled(table, up_s, down_s, await _answers_since(platform, gone, went_ms))


async def _fewer(platform: ServedPlatform, both: set[str]) -> bool:
    named = await platform.named()
    return bool(named) and named < both


async def keep_two(platform: ServedPlatform) -> None:
    """Raise the lower bound, which starts the second replica and leaves the first."""
    platform.describe(replicas=2, autoscaling=msgspec.structs.replace(SCALING, min_replicas=2))
    await platform.deploy()
    await platform.until(lambda told: len(told) == SCALING.max_replicas)


async def change_the_model(platform: ServedPlatform, load: GatewayLoad) -> Bill:
    """Change what replicas must know, and deploy it; return once all of them are new ones."""
    old = names(await platform.replicas())
    platform.describe(max_wait_s=platform.spec.max_wait_s - 1)
    async with load.clients(FEW, max_tokens=LONG):
        await platform.deploy()
        await platform.until(lambda told: bool(told) and not names(told) & old)
    return await bill(platform, load.asked)


async def _answers_since(platform: ServedPlatform, replica: str, since_ms: int) -> int:
    async with platform.foundation.database.reading() as session:
        of_replica = UsageReport.replica == replica, UsageReport.witness == "replica", UsageReport.at_ms > since_ms
        finished = select(func.count()).where(*of_replica, UsageReport.outcome == "finished")
        return await session.scalar(finished) or 0


def names(replicas: Sequence[Replica]) -> set[str]:
    return {one.name for one in replicas}
