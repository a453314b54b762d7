"""What the decisions know of a sequence in the engine; vLLM's own `Request` is one."""

from typing import Protocol


class Sequence(Protocol):
    """One sequence: a prompt and what was generated after it. Token counts are vLLM's."""

    request_id: str
    arrival_time: float
    num_computed_tokens: int

    @property
    def num_tokens(self) -> int: ...

    @property
    def is_prefill_chunk(self) -> bool:
        """Whether the last step left some of its prompt to be computed."""
        ...


def prefill_left(sequence: Sequence) -> int:
    """Return how many tokens are to be computed before the sequence generates its next one."""
    return max(0, sequence.num_tokens - sequence.num_computed_tokens)
