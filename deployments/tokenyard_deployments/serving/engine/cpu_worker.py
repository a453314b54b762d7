"""vLLM's worker on a CPU, which tells how long its start took, and which a `seed` cannot kill (vLLM 0.32).

Every step samples a token of every sequence, also of those whose prompt is not read to its end; for these vLLM then
takes the draw back from the request's own generator, as generators of GPUs can. On a CPU that is an exception, and any
exception within a step is the engine's end.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from tokenyard_deployments.serving.engine.pinned import require


class SeededCpuWorker(CPUWorker):  # type: ignore[misc]
    """Draws from a request's own generator only what the request gets."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load it.

        Raises:
            UnknownEngine: the worker's inside is not what is known here.
        """
        self._start_seconds: dict[str, float] = {}
        with self._timed("weights"):
            super().load_model(*args, **kwargs)
        require(self.model_runner, "input_batch", "discard_request_mask", "sample_tokens")
        require(self.model_runner.input_batch, "generators")

    def initialize_from_config(self, *args: Any, **kwargs: Any) -> None:
        with self._timed("kv_memory"):
            super().initialize_from_config(*args, **kwargs)

    def determine_available_memory(self) -> int:
        # vLLM compiles and profiles here, on a CPU.
        with self._timed("profile"):
            available: int = super().determine_available_memory()
        return available

    def start_seconds(self) -> dict[str, float]:
        return self._start_seconds

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._start_seconds[phase] = time.monotonic() - began

    def sample_tokens(self, grammar_output: Any) -> Any:
        with without_discarded_draws(self.model_runner):
            return super().sample_tokens(grammar_output)


@contextmanager
def without_discarded_draws(runner: Any) -> Iterator[None]:
    """Keep out of sampling the generators of those whose token will be discarded."""
    generators: dict[int, Any] = runner.input_batch.generators
    unready = [place for place in generators if runner.discard_request_mask.np[place]]
    kept = {place: generators.pop(place) for place in unready}
    try:
        yield
    finally:
        generators.update(kept)
