"""Tenancy's loops in a worker."""

from tokenyard.core.clock import Clock
from tokenyard.tenancy.key_versions import KeyVersions
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.organizations import Organizations
from tokenyard.web.loops import Loop

ANNOUNCE_S = 5.0
REPEAT_S = 5.0
# No cache serves a key for longer than 10 minutes.
LOOK_BACK_S = 15 * 60


def tenancy_loops(
    *, organizations: Organizations, store: TenancyOperatorStore, versions: KeyVersions, clock: Clock
) -> list[Loop]:
    """Return the loops that announce new organizations, and that repeat the key versions that changed lately."""

    async def repeat_versions() -> None:
        await versions.publish(await store.versions_changed_since(clock.now_ms() - LOOK_BACK_S * 1000))

    return [
        Loop("new-organizations", organizations.announce_all, ANNOUNCE_S),
        Loop("key-versions", repeat_versions, REPEAT_S),
    ]
