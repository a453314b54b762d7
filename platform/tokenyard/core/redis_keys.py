"""The names of everything in Redis.

An organization lives in one of 64 buckets for ever; the bucket is the hash tag of all its keys, so one script
works on Redis Cluster and one worker writes for one organization.
"""

import zlib

from tokenyard.core.ids import OrganizationId, RequestId

BUCKETS = 64
CONSUMER_GROUP = "ledger"
REPLICAS = "ty:replica-snapshot"  # JSON catalog.replicas.registry.ReplicaSnapshot; absent when Redis is new


def work_lease(name: str) -> str:
    """String with an expiry: which process does the work `name` at the moment."""
    return f"ty:lease:{name}"


def bucket_of(organization: OrganizationId) -> int:
    """Return the organization's bucket, 0 to 63."""
    return zlib.crc32(organization.encode()) % BUCKETS


def bucket_tag(bucket: int) -> str:
    return f"ty:{{b{bucket:02d}}}"


def usage_stream(bucket: int) -> str:
    """Stream; each entry has one field `event`: JSON `metering.events.UsageEvent`."""
    return f"{bucket_tag(bucket)}:usage"


def ready(bucket: int) -> str:
    """String, present when the bucket's budgets are loaded; absent means Redis was found empty."""
    return f"{bucket_tag(bucket)}:ready"


def holds(bucket: int) -> str:
    """Sorted set: request id -> end of its lease in unix milliseconds."""
    return f"{bucket_tag(bucket)}:holds"


def hold(bucket: int, request: RequestId | str) -> str:
    """Hash of one hold: `claims` (JSON), `amount` (nano-dollars), `tokens`, and what it took."""
    return f"{bucket_tag(bucket)}:hold:{request}"


def undecided(bucket: int, request: RequestId | str) -> str:
    """Hash: what token windows count (`tokens`, `scopes`, `admitted_at_ms`) for a request whose usage is unknown."""
    return f"{bucket_tag(bucket)}:undecided:{request}"


def settled(bucket: int, request: RequestId | str) -> str:
    """String with an expiry: this request was settled; a second settle changes nothing."""
    return f"{bucket_tag(bucket)}:settled:{request}"


def budget(bucket: int, name: str) -> str:
    """Hash: `ledger`, `version`, `pending`, `held`, all integers; money in nano-dollars."""
    return f"{bucket_tag(bucket)}:budget:{name}"


BUDGETS = "ty:{b*}:budget:*"
"""The pattern of all budgets."""


def budget_in(key: str) -> tuple[int, str]:
    """Return the bucket and the name of the budget that `key` is of."""
    tag, _, name = key.partition(":budget:")
    return int(tag.removeprefix("ty:{b").removesuffix("}")), name


def pending(bucket: int, name: str) -> str:
    """Hash: charge key -> nano-dollars that are settled but not yet in the budget's `ledger`."""
    return f"{bucket_tag(bucket)}:pending:{name}"


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
