"""When the engine last gave a sign of life: vLLM hears of its scheduler after every step, also in a long prompt."""

import time
from collections.abc import Callable
from typing import Any

from tokenyard_deployments.serving.engine.pinned import require


class EnginePulse:
    """Takes the place of one method of vLLM's own output `processor`; another one raises `UnknownEngine`."""

    def __init__(self, processor: Any, now: Callable[[], float] = time.monotonic) -> None:
        require(processor, "update_scheduler_stats")
        self._now = now
        self._vllm_update: Callable[[Any], None] = processor.update_scheduler_stats
        processor.update_scheduler_stats = self._update
        self.last_sign = now()

    def _update(self, stats: Any) -> None:
        self.last_sign = self._now()
        self._vllm_update(stats)
