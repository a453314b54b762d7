"""The parts of vLLM's scheduler that ours is built on, as they are known: another text means another engine."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.core.sched.scheduler import Scheduler

from tokenyard_deployments.serving.engine.pinned import PINNED_VERSION, UnknownEngine

# The first 16 hexadecimal digits of the SHA-256 of each source text.
KNOWN: tuple[tuple[Callable[..., Any] | type, str], ...] = (
    (Scheduler.schedule, "da4f2cf2fc39c39e"),
    (Scheduler.add_request, "fa2b51cd04a90977"),
    (Scheduler.finish_requests, "b7a4ef7b8aa588bf"),
    (Scheduler._preempt_request, "4113f5de8a84ec25"),
    (Scheduler._update_after_schedule, "2b527eb8070d3cce"),
    (Scheduler._enqueue_waiting_request, "0afc41b2499cdb13"),
    (AsyncScheduler._update_after_schedule, "138d47daea23cdfd"),
    (RequestQueue, "953b423ab7cddf09"),
)


def digest(part: Callable[..., Any] | type) -> str:
    return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()[:16]


def check_scheduler() -> None:
    """Raise `UnknownEngine` where vLLM's scheduler is not the one that ours was written for."""
    changed = [part.__qualname__ for part, known in KNOWN if digest(part) != known]
    if changed:
        raise UnknownEngine(f"vLLM's {', '.join(changed)} changed since {PINNED_VERSION}0: the order would not be fair")
