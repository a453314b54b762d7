"""The names of everything in Redis.

An organization lives in one of 64 buckets for ever; the bucket is the hash tag of all its keys, so one script
works on Redis Cluster and one worker writes for one organization.
"""

import zlib
from functools import cache, lru_cache

from tokenyard.core.ids import OrganizationId, RequestId

BUCKETS = 64
CONSUMER_GROUP = "ledger"
REPLICAS = "ty:replica-snapshot"  # JSON catalog.replicas.registry.ReplicaSnapshot; absent when Redis is new


def called_for(model: str) -> str:
    """String with an expiry: a replica of base model `model` is waited for."""
    return f"ty:called-for:{model}"


def work_lease(name: str) -> str:
    """String with an expiry: which process does the work `name` at the moment."""
    return f"ty:lease:{name}"


@lru_cache(maxsize=10_000)
def bucket_of(organization: OrganizationId) -> int:
    """Return the organization's bucket, 0 to 63."""
    return zlib.crc32(organization.encode()) % BUCKETS


@cache
def bucket_tag(bucket: int) -> str:
    return f"ty:{{b{bucket:02d}}}"


def usage_stream(bucket: int) -> str:
    """Stream; each entry has one field `event`: JSON `metering.events.UsageEvent`."""
    return f"{bucket_tag(bucket)}:usage"


def ready(bucket: int) -> str:
    """String, present when the bucket's budgets are loaded; absent means Redis was found empty."""
    return f"{bucket_tag(bucket)}:ready.2"


def holds(bucket: int) -> str:
    """Sorted set: request id -> end of its lease in unix milliseconds."""
    return f"{bucket_tag(bucket)}:holds.2"


def first_shape(bucket: int) -> tuple[str, str]:
    """Return what `ready` and `holds` were called before budgets were packed: one bucket has one shape at a time."""
    return f"{bucket_tag(bucket)}:ready", f"{bucket_tag(bucket)}:holds"


def request(bucket: int, request: RequestId | str) -> str:
    """String: a request's hold (`limits/lua/requests.lua`), or for some minutes that it was settled."""
    return f"{bucket_tag(bucket)}:request:{request}"


def undecided(bucket: int, request: RequestId | str) -> str:
    """Hash: what token windows count (`tokens`, `scopes`, `admitted_at_ms`) for a request whose usage is unknown."""
    return f"{bucket_tag(bucket)}:undecided:{request}"


def budget(bucket: int, name: str) -> str:
    """String: a budget's figures, packed (`limits/budget_figures.py`)."""
    return f"{bucket_tag(bucket)}:budget.2:{name}"


BUDGETS = "ty:{b*}:budget.2:*"
"""The pattern of all budgets."""


def budget_in(key: str) -> tuple[int, str]:
    """Return the bucket and the name of the budget that `key` is of."""
    tag, _, name = key.partition(":budget.2:")
    return int(tag.removeprefix("ty:{b").removesuffix("}")), name


def pending(bucket: int) -> str:
    """Hash: charge key -> nano-dollars that are settled, and the budgets in whose `ledger` they are not yet."""
    return f"{bucket_tag(bucket)}:pending.2"


def windows(bucket: int, scope: str) -> str:
    """String: what a key, project or organization has in use and in its windows, packed (`limits/lua/windows.lua`)."""
    return f"{bucket_tag(bucket)}:windows:{scope}"


def revision(bucket: int, organization: OrganizationId) -> str:
    """String: the organization's revision; a caller that knows an older one must look its key up again."""
    return f"{bucket_tag(bucket)}:revision:{organization}"


def idempotent_reply(bucket: int, organization: OrganizationId, name: str) -> str:
    """Hash with an expiry: what runs, or ran, under one idempotency key (`gateway/idempotency/replies.lua`)."""
    return f"{bucket_tag(bucket)}:idempotent:{organization}:{name}"


def idempotent_running(bucket: int, organization: OrganizationId) -> str:
    """Sorted set: request id under an idempotency key -> end of its lease in unix milliseconds."""
    return f"{bucket_tag(bucket)}:idempotent-running:{organization}"


def idempotent_bytes(bucket: int, organization: OrganizationId) -> str:
    """Hash: hour since 1970 -> bytes of the replies that were kept in it."""
    return f"{bucket_tag(bucket)}:idempotent-bytes:{organization}"
