"""What is known of one training attempt in the cluster."""

from enum import StrEnum

import msgspec


class RunState(StrEnum):
    """The cluster's own word for it; `pending` waits for room, the last three are ends."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_active(self) -> bool:
        return self in (RunState.PENDING, RunState.RUNNING)


class RunStatus(msgspec.Struct, frozen=True):
    """`message` is for the operator's log; it may show the inside and never goes to a tenant."""

    state: RunState
    message: str = ""
