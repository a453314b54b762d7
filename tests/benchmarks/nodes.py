"""One model on two nodes under load, scaled and then hit by a lost node: its part of build/bench/serving.json."""

import asyncio
import tempfile
from pathlib import Path

from benchmarks.figures import add_figures
from support.ray_cluster.gateway_load import GatewayLoad
from support.ray_cluster.losses import lose_a_node
from support.ray_cluster.rescaling import SCALING, keep_two, scale_up_and_down
from support.ray_cluster.served_platform import NODES, served_platform
from support.ray_cluster.small_model import pulled


async def measure(folder: Path, base: Path) -> dict[str, float]:
    """Return how many requests went wrong, and how many seconds each step took."""
    async with served_platform(folder, base, nodes=len(NODES), autoscaling=SCALING) as platform:
        scaled = await scale_up_and_down(platform, GatewayLoad(platform))
        await keep_two(platform)
        await platform.new_tenant("globex")
        lost = await lose_a_node(platform, GatewayLoad(platform))
    return {
        "scale_1_2_failed": scaled.bill.lost + scaled.bill.cut,
        "scale_1_2_requests": scaled.bill.answered,
        "scale_1_2_s": round(scaled.up_s, 1),
        "scale_2_1_s": round(scaled.down_s, 1),
        "node_kill_lost": lost.bill.lost,
        "node_kill_requests": lost.bill.answered,
        "node_kill_cut": lost.bill.cut,
        "node_kill_noticed_s": round(lost.noticed_s, 1),
        "node_kill_adapter_back_s": round(lost.adapter_back_s, 1),
        "node_kill_replaced_s": round(lost.replaced_s, 1),
    }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tokenyard-bench-", ignore_cleanup_errors=True) as name:
        print("One replica, two and one again, then a node is lost ...", flush=True)  # noqa: T201
        figures = asyncio.run(measure(Path(name), pulled()))
    add_figures("serving", figures)


if __name__ == "__main__":
    main()
