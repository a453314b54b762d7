"""Several gateway processes before one Valkey: what they reach together, and whether they keep one limit together."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks.gateway.stand import FEW_A_MINUTE, OTHER_CORE, PATH, Load, Stand, Target, load

CONNECTIONS = 16
SECONDS = 4.0


def requests_per_s(stand: Stand, processes: int) -> float:
    """Return the rate of `processes` gateways on the machine's cores in turn, each with a load of its own."""
    return sum(one.rps for one in _loads(stand, processes, "limited"))


def limit_error(stand: Stand, processes: int) -> float:
    """Let `processes` gateways be asked for more than a limit; return by what part of it they let more or fewer in."""
    loads = _loads(stand, processes, "few")
    asked = sum(sum(one.statuses.values()) for one in loads)
    assert asked > 1.2 * FEW_A_MINUTE, f"{asked} requests are too few to reach the limit"
    return abs(sum(one.statuses.get("200", 0) for one in loads) - FEW_A_MINUTE) / FEW_A_MINUTE


def _loads(stand: Stand, processes: int, tenant: str) -> list[Load]:
    with ExitStack() as stack, ThreadPoolExecutor(processes) as threads:
        urls = [stack.enter_context(stand.gateway(number % (OTHER_CORE + 1)))[0] for number in range(processes)]
        targets = [Target(url + PATH, stand.bearer(tenant)) for url in urls]
        return list(threads.map(lambda target: load(target, CONNECTIONS, SECONDS), targets))
