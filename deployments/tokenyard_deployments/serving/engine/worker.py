"""What a replica can ask of its engine's worker, besides what vLLM's own can do (pinned: 0.32)."""

import torch

COMPUTE_ON = "compute_on"


class WorkerExtension:
    """vLLM adds these methods to its worker; they run between two steps, on the thread that computes."""

    def compute_on(self, threads: int) -> None:
        """Compute on so many threads from the next step on."""
        # vLLM turns off the function in `torch` itself, for workers whose threads it has bound to cores.
        torch._C.set_num_threads(threads)
